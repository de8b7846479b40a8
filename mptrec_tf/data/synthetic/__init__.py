"""Synthetic files in the raw formats of Ali-CCP and Byte-Rec, with a known truth behind them.

Good for tests, trials and measurements of speed; no figure on them says anything about quality on
the published data.
"""

from mptrec_tf.data.synthetic.ali_ccp import generate_ali_ccp
from mptrec_tf.data.synthetic.byte_rec import generate_byte_rec

__all__ = ["generate_ali_ccp", "generate_byte_rec"]
