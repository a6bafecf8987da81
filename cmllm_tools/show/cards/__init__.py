"""Cards of values, a module to each room: loaded by the room's name when one of its values is first shown; see `shown`."""
