"""The compiled part and the models; everything else is said in pyproject.toml."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithModels(build_py):
    """Puts the models into the package; an editable install finds them where they are."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            self.copy_tree("onnx_models", str(Path(self.build_lib) / "realtime_sep/onnx_models"))


setup(
    cffi_modules=["native/build_cffi.py:ffi"],
    cmdclass={"build_py": BuildWithModels},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
