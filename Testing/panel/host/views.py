"""Slicer's own slice and 3D views, rendered without a screen, for pictures."""

from __future__ import annotations

from typing import Any

import slicer
import vtk

SLICES = (("Red", "Axial"), ("Green", "Coronal"), ("Yellow", "Sagittal"))


class SliceView:
    """One slice view: slice logic, displayable managers, render window."""

    def __init__(self, name: str, orientation: str, size: tuple[int, int]) -> None:
        scene = slicer.mrmlScene
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene)
        self.logic = slicer.vtkMRMLSliceLogic()
        self.logic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        self.logic.SetMRMLScene(scene)
        self._node = self.logic.AddSliceNode(name)
        self._node.SetOrientation(orientation)
        self._node.SetDimensions(*size, 1)
        application = slicer.app.applicationLogic()
        if application.GetSliceLogics() is None:
            application.SetSliceLogics(vtk.vtkCollection())
        application.GetSliceLogics().AddItem(self.logic)
        self._renderer = vtk.vtkRenderer()
        self._window = offscreenWindow(self._renderer, size)
        self._mapper = vtk.vtkImageMapper()
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)
        actor = vtk.vtkActor2D()
        actor.SetMapper(self._mapper)
        actor.GetProperty().SetDisplayLocationToBackground()
        self._renderer.AddActor2D(actor)
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        factory.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        self._group = managers(
            factory, ("vtkMRMLSegmentationsDisplayableManager2D",), self._renderer, self._node
        )

    def show(self, volume: Any, share: float = 0.5) -> None:
        """Fit to the volume, at a share of its depth."""
        composite = self.logic.GetSliceCompositeNode()
        composite.SetBackgroundVolumeID(volume.GetID() if volume is not None else None)
        self.logic.FitSliceToBackground()
        low, high = [0.0] * 6, 0.0
        self.logic.GetBackgroundSliceBounds(low)
        depth = low[5] - low[4]
        high = low[4] + share * depth
        self.logic.SetSliceOffset(high)

    def image(self) -> Any:
        """What the view shows, as vtkImageData."""
        self.logic.UpdatePipeline()
        blend = self.logic.GetBlend() if self.logic.GetSliceCompositeNode() else None
        if blend is not None and blend.GetNumberOfInputs():
            blend.Update()
            self._mapper.SetInputData(blend.GetOutput())
        return grabbed(self._window)


class ThreeDView:
    """The 3D view with the closed surfaces of the segmentations."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._node = slicer.vtkMRMLViewNode()
        self._node.SetName("View1")
        self._node.SetLayoutName("1")
        self._node = slicer.mrmlScene.AddNode(self._node)
        self._renderer = vtk.vtkRenderer()
        self._renderer.SetGradientBackground(True)
        self._renderer.SetBackground(0.76, 0.76, 0.91)
        self._renderer.SetBackground2(0.45, 0.47, 0.75)
        self._window = offscreenWindow(self._renderer, size)
        factory = slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance()
        factory.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        self._group = managers(
            factory, ("vtkMRMLSegmentationsDisplayableManager3D",), self._renderer, self._node
        )

    def image(self) -> Any:
        """What the view shows, from the front and above."""
        camera = self._renderer.GetActiveCamera()
        camera.SetFocalPoint(0, 0, 0)
        camera.SetPosition(-200, 350, 160)
        camera.SetViewUp(0, 0, 1)
        self._renderer.ResetCamera()
        camera.Zoom(1.3)
        self._renderer.ResetCameraClippingRange()
        return grabbed(self._window)


class FourUp:
    """Slicer's usual layout: axial, 3D, coronal, sagittal."""

    def __init__(self, side: int = 300) -> None:
        self._side = side
        self.slices = [SliceView(name, kind, (side, side)) for name, kind in SLICES]
        self.threeD = ThreeDView((side, side))

    def show(self, volume: Any, segmentation: Any = None, share: float = 0.5) -> None:
        """Show a volume and, in 3D too, a segmentation."""
        for view in self.slices:
            view.show(volume, share)
        if segmentation is not None:
            segmentation.CreateClosedSurfaceRepresentation()
            segmentation.GetDisplayNode().SetVisibility2DOutline(True)
            segmentation.GetDisplayNode().SetOpacity2DFill(0.35)

    def save(self, path: str) -> None:
        """Write the four views as one PNG."""
        red, green, yellow = (view.image() for view in self.slices)
        rows = [joined((green, yellow), 0), joined((red, self.threeD.image()), 0)]
        writer = vtk.vtkPNGWriter()
        writer.SetFileName(path)
        writer.SetInputData(joined(rows, 1))
        writer.Write()


def managers(factory: Any, names: tuple[str, ...], renderer: Any, node: Any) -> Any:
    """The displayable managers of these names, at work in a renderer for a view node."""
    group = slicer.vtkMRMLDisplayableManagerGroup()
    for name in names:
        if not factory.IsDisplayableManagerRegistered(name):
            factory.RegisterDisplayableManager(name)
    group.Initialize(factory, renderer)
    group.SetMRMLDisplayableNode(node)
    return group


def offscreenWindow(renderer: Any, size: tuple[int, int]) -> Any:
    """A render window that is never shown."""
    window = vtk.vtkRenderWindow()
    window.SetOffScreenRendering(1)
    window.SetSize(*size)
    window.SetMultiSamples(8)
    window.AddRenderer(renderer)
    interactor = vtk.vtkGenericRenderWindowInteractor()
    interactor.SetRenderWindow(window)
    return window


def grabbed(window: Any) -> Any:
    """The window's picture."""
    window.Render()
    grab = vtk.vtkWindowToImageFilter()
    grab.SetInput(window)
    grab.SetInputBufferTypeToRGB()
    grab.ReadFrontBufferOff()
    grab.Update()
    return grab.GetOutput()


def joined(images: Any, axis: int) -> Any:
    """Pictures beside (0) or above (1) each other."""
    append = vtk.vtkImageAppend()
    append.SetAppendAxis(axis)
    for image in images:
        append.AddInputData(image)
    append.Update()
    return append.GetOutput()
