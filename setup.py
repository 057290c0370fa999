"""The compiled part; everything else is said in pyproject.toml."""

from setuptools import setup

setup(
    cffi_modules=["native/build_cffi.py:ffi"],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
