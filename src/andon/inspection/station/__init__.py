"""What stands at the line: the service with its journal, page, monitors and outputs.

``station.Station`` is the centre: named inspectors behind one queue, and a journal of every verdict. The others stand
around it: ``service`` speaks HTTP, ``pages`` are the web page, ``monitor`` watches drift, ``outputs`` tell the line.
"""
