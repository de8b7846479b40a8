"""Packaging of mptrec_tf.

A `setup.py` and not only a `pyproject.toml`, because Beam's distributed runners ship this file to
their workers (`--setup_file`).
"""

import pathlib
import re

from setuptools import find_namespace_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (ROOT / "mptrec_tf/__init__.py").read_text(), re.MULTILINE
).group(1)

EXTRAS = {
    "tfx": [
        "tfx>=1.21,<1.22",
        "apache-beam[gcp]>=2.47",
        "jinja2>=3.1",
        "kfp-pipeline-spec>=2.16,<2.17",
        "matplotlib>=3.8",
    ],
    "serving": [
        "grpcio>=1.66",
        "requests>=2.31",
        "tensorflow-serving-api>=2.19",
        "tornado>=6.4",
    ],
    "tuner": ["keras-tuner>=1.4.7", "matplotlib>=3.8", "tensorboard>=2.19"],
    "report": ["jinja2>=3.1", "matplotlib>=3.8"],
    "bench": [
        "jinja2>=3.1",
        "keras-tuner>=1.4.7",
        "lightgbm>=4.3",
        "matplotlib>=3.8",
        "threadpoolctl>=3.1",
    ],
    "docs": ["ipykernel>=6.29", "nbclient>=0.10", "nbformat>=5.10"],
    "dev": [
        "build>=1.2",
        "check-jsonschema>=0.29",
        "hypothesis>=6.100",
        "kubernetes-validate>=1.31",
        "mypy>=1.11",
        "pandas-stubs>=2.2,<3",
        "pytest>=8.3",
        "pytest-xdist>=3.6",
        "ruff>=0.6",
        "types-PyYAML",
        "types-tqdm",
    ],
}

setup(
    name="mptrec-tf",
    version=VERSION,
    description="Multi-task prompt tuning for recommendation (MPT-Rec) in Keras 3 and TensorFlow",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    author="The mptrec_tf developers",
    packages=find_namespace_packages(
        include=["mptrec_cli*", "mptrec_client*", "mptrec_tf*", "pipelines*"]
    ),
    package_data={
        "mptrec_tf": ["py.typed", "**/*.html"],
        "mptrec_cli": ["py.typed"],
        "mptrec_client": ["py.typed"],
        "pipelines": ["py.typed", "**/*.html"],
    },
    python_requires=">=3.11,<3.14",
    install_requires=[
        "keras>=3.13,<4",
        "numpy>=1.26",
        "pandas>=2.1",
        "pyarrow>=15",
        "pydantic>=2.7",
        "pyyaml>=6",
        "scikit-learn>=1.4",
        "scipy>=1.11",
        "tensorflow>=2.20",
        "tqdm>=4.66",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["mptrec = mptrec_cli:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
