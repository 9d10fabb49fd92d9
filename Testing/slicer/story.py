"""The whole story inside a real Slicer.

    Slicer --testing --python-script Testing/slicer/story.py

``SAMSEMISEG_DATA`` names the folder of the scans, whose folder ``hippocampus`` holds ``images``,
``labels`` and ``train.list``. Ends with exit code 0 only when all chapters have passed: whatever
else happens, a timeout included, the exit code is another one.
"""

import faulthandler
import os
import sys
import traceback

import slicer

LONGEST_SECONDS = 20 * 60


def main() -> int:
    # Ends Slicer with an exit code that is not 0 if a chapter hangs.
    faulthandler.dump_traceback_later(LONGEST_SECONDS, exit=True, file=sys.__stderr__)
    slicer.util.selectModule("SAMSemiSeg")
    widget = slicer.util.getModuleWidget("SAMSemiSeg")
    from SAMSemiSegModule.story import runStory

    runStory(widget, os.environ.get("SAMSEMISEG_DATA"))
    return 0


try:
    code = main()
    print("The story has passed." if code == 0 else "The story has failed.")
except BaseException:
    traceback.print_exc()
    code = 1
slicer.util.exit(code)
