"""SAMSemiSeg: foundation-model pseudo-labels for semi-supervised 3D segmentation.

The pipeline reads in the folders, in this order: ``project``, ``preprocessing``, ``stitching``,
``foundation``, ``finetuning``, ``pseudolabels``, ``retraining``, ``evaluation``, ``report``,
``export``. ``docs/architecture.md`` says what each hands to the next.
"""

__version__ = "0.1.0"
