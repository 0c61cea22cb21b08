"""Self-supervised anomaly detection: from an unlabelled table to a registered, served detector.

Names are imported when they are first used, so that `import ssad.bundle` loads no torch. What is
exported, and from where, stands in `__init__.pyi`.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
