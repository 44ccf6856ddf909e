"""What a run needs of the machine: its own code in every process, and room on its disks.

Every stage may import it.

Layer 2.
"""
