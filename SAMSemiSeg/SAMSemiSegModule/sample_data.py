"""The tutorial's scans in Slicer's Sample Data module.

Six brain MR crops of the Medical Segmentation Decathlon, Task 04 (Antonelli et al., Nature
Communications 2022, CC BY-SA 4.0), two of them with their labels. Each file is checked by its
SHA-256; the release of the repository that serves them names the files as they are named here.
"""

from __future__ import annotations

from pathlib import Path

from slicer.i18n import tr as _

CATEGORY = "SAMSemiSeg"
BASE = "https://github.com/SAMSemiSeg/SlicerSAMSemiSeg/releases/download/sample-data/"
IMAGES = {
    "hippocampus_001": "ab47d6115b412ffaba041cbf48962967127f199f39eb56c777a6bb3746353b4a",
    "hippocampus_003": "fbc024c6c4788c3e85921613620d9b952408f1aa34ef06159bb4213ef7208ce4",
    "hippocampus_004": "353a2ba9afe7f2a2b04276d9b35bc46cab36826e74d61b100b210a9dd8d348d9",
    "hippocampus_006": "f57bc01710fa0905a7053c06d4972b827ae72bc0a2ece2f931e9fbb30d0e8a54",
    "hippocampus_008": "d26948be3247af4a08aa40d67c3758457805f261fa940b43faba7a408710e5a1",
    "hippocampus_011": "d1b0ec8ff9ad7a88605a913f5527802aa5c0a93e576836495b8bade25d017d5d",
}
LABELS = {
    "hippocampus_001": "31e218cd74ee787c25a17a9cc3a13743ba8ecd11dd76fbad3c0c18c09fd8b396",
    "hippocampus_003": "6ada5ddb1dbaee9e0488de52cb5425de67371e4a329bddc761917f923a176a42",
}


def register(icons: Path) -> None:
    """Tell the Sample Data module of the scans.

    Args:
        icons: folder of the thumbnail.
    """
    import SampleData

    logic = SampleData.SampleDataLogic
    logic.registerCustomSampleDataCategory(CATEGORY, title=_("SAMSemiSeg"))
    images = [f"{name}.nii.gz" for name in IMAGES]
    labels = [f"{name}-label.nii.gz" for name in LABELS]
    files = [*images, *labels]
    sums = [*IMAGES.values(), *LABELS.values()]
    logic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName="SAMSemiSegHippocampus",
        thumbnailFileName=str(icons / "SAMSemiSegHippocampus.png"),
        uris=[BASE + file for file in files],
        fileNames=files,
        checksums=[f"SHA256:{value}" for value in sums],
        nodeNames=[*IMAGES, *(f"{name} label" for name in LABELS)],
        loadFileTypes=["VolumeFile"] * len(images) + ["SegmentationFile"] * len(labels),
    )
