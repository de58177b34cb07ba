"""These tests need Prometheus, which `make test-monitoring` gets; elsewhere they are not collected."""

import os

collect_ignore_glob = [] if os.environ.get("PROMETHEUS_FOLDER") else ["test_*.py"]
