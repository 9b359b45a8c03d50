"""The [device.NAME] tables of an instrument file: one model for each kind of device, with the driver's own settings.

The keys of a table are the keyword arguments of its driver, with the same defaults; what they mean stands there and in
docs/drivers. Besides, `driver` says which it is, and `line` on which line it is.
"""
