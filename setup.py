"""Takes the MONAI bundle, which lies beside the package in the repository, into the package when that is built."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

BUNDLE = sorted(str(path) for path in Path("bundle").rglob("*") if path.is_file())


class BuildWithBundle(build_py):
    """Copies `bundle/` to `monai_chd/bundle/`; an editable install finds it where it is."""

    def run(self) -> None:
        super().run()
        for path in [] if self.editable_mode else BUNDLE:
            target = Path(self.build_lib, "monai_chd", path)
            self.mkpath(str(target.parent))
            self.copy_file(path, str(target))

    def get_source_files(self) -> list[str]:
        return [*super().get_source_files(), *BUNDLE]


setup(cmdclass={"build_py": BuildWithBundle})
