"""From raw files of any size to rows in parts: in bounded memory, by Beam, resumable."""
