"""The compiled part and the models; everything else is said in pyproject.toml."""

import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_py import build_py


class BuildWithModels(build_py):
    """Puts the models into the package; an editable install finds them where they are."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            self.copy_tree("onnx_models", str(Path(self.build_lib) / "realtime_sep/onnx_models"))


# Loaded by other programs, not by Python.  Without ladspa.h and lv2.h it is empty, and says so when
# it is to be installed; without Linux there is none.
PLUGIN = Extension(
    "realtime_sep._plugin",
    [
        *(f"native/plugin/{name}.c" for name in ("plugin", "link", "ladspa", "lv2")),
        *(f"native/src/{name}.c" for name in ("memory", "thread", "ring", "wake", "bridge")),
    ],
    include_dirs=["native/include", "native/src"],
    depends=["native/plugin/plugin.h", "native/plugin/link.h", "native/include/realtime_sep.h"],
    extra_compile_args=["-std=c11", "-O3", "-g0", "-fvisibility=hidden"],
    libraries=["pthread", "m"],
    py_limited_api=True,
    optional=True,
)

setup(
    ext_modules=[PLUGIN] if sys.platform == "linux" else [],
    cffi_modules=["native/build_cffi.py:ffi"],
    cmdclass={"build_py": BuildWithModels},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
