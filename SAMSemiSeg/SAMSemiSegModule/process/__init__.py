"""The library at work in a process of its own: started, followed, ended, found again.

Nothing here needs Qt; the panel asks ``poll()`` from a timer, so Slicer stays usable.
"""
