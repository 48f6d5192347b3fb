"""Apache Kafka for the local JVM, from its Maven artifacts, kept in the repository's cache folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "kafka"
_SLF4J = "1.7.36"
_POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tests</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{kafka}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>{slf4j}</version>
    </dependency>
  </dependencies>
</project>
"""


def missing_for_jvm(version: str) -> str | None:
    """What the machine lacks to run Kafka on its JVM, or None."""
    if shutil.which("java") is None:
        return "a Java runtime (java)"
    if not _libraries(version).is_dir() and shutil.which("mvn") is None:
        return "Apache Maven (mvn), or its earlier download in .cache/kafka"
    return None


def kafka_class_path(version: str) -> str:
    """The class path of that Kafka version; downloads it with Maven the first time."""
    libraries = _libraries(version)
    if not libraries.is_dir():
        libraries.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=libraries.parent))
        try:
            (staging / "pom.xml").write_text(_POM.format(kafka=version, slf4j=_SLF4J))
            command = ["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={staging / 'libs'}"]
            done = subprocess.run(command, cwd=staging, capture_output=True, text=True, timeout=600, check=False)
            if done.returncode != 0:
                raise RuntimeError(f"Maven could not fetch Apache Kafka {version}: {done.stdout[-1000:]}")
            # Another session may have been faster; its download is as good as ours.
            if not libraries.is_dir():
                os.rename(staging / "libs", libraries)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return f"{libraries}/*"


def _libraries(version: str) -> Path:
    return CACHE / version / "libs"
