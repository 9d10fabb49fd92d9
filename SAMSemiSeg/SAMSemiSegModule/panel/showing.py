"""The case on screen: how it comes there, and what is said of it."""

from __future__ import annotations

from typing import Any

from slicer.i18n import tr as _

from SAMSemiSegModule.panel.services import Services


def showCase(services: Services, case: Any) -> None:
    """Show a case, and say so where its label cannot be shown.

    Raises:
        OSError: a file cannot be read; the message names it.
    """
    store, parameters = services.store, services.parameters
    services.view.show(store, case, parameters, parameters.overlayOpacity)
    if parameters.caseSegmentation is None and store.hasLostLabel(case):
        services.tell(
            _(
                "The label of '{case}' is not there any more ('{path}'): put the file back, or "
                "label the case anew in 'Labels'."
            ).format(case=case.id, path=store.labelPath(case))
        )
