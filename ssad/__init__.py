"""Self-supervised anomaly detection: from an unlabelled table to a registered, served detector.

Names are imported when they are first used, so that `import ssad.bundle` loads no torch. What is
exported, and from where, stands in `__init__.pyi`.
"""

import os

import lazy_loader

__version__ = "0.1.0"

# Else onnxruntime, as soon as it is imported, tells its maker of the machine, the models' names and its errors.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
