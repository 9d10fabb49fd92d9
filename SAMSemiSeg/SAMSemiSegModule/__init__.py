"""The SAMSemiSeg module: Qt and MRML only. All work is the library's, in a process of its own."""
