"""How each method is trained from data to `metrics.json`: one module per method.

A module here is what the table `wsss_lab.methods.METHODS` names as recipe. It has

================  =================================================================================
``Config``        frozen dataclass; every field is an option of the command line
``PRESETS``       name -> `Config`
``NO_PRESET``     optional: name -> why there is no such preset
``train``         `train(config, out, resume, log) -> metrics`
``load_method``   `load_method(facts, state) -> Method` that predicts, from a weights file
================  =================================================================================
"""
