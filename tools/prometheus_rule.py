"""Writes the alerts as an object of the Prometheus operator, for the kustomize component `monitoring`.

deploy/monitoring/alerts.yaml is where alerts are written and tested; kustomize reads no file outside of its folder,
hence a copy. A test compares the two.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
RULES = DEPLOY / "monitoring" / "alerts.yaml"
OBJECT = DEPLOY / "k8s" / "components" / "monitoring" / "prometheus-rule.yaml"

HEAD = """\
# Generated from deploy/monitoring/alerts.yaml by `make docs`; edit it there.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: punctual
spec:
"""


def main() -> None:
    """Write the object."""
    OBJECT.write_text(HEAD + textwrap.indent(RULES.read_text(encoding="utf-8"), "  "), encoding="utf-8")


if __name__ == "__main__":
    main()
