"""How each method is trained from data to `metrics.json`: one module per method.

A module here is what the table `wsss_lab.methods.METHODS` names as recipe. It has

=================  ================================================================================
``Config``         frozen dataclass; every field is an option of the command line
``PRESETS``        name -> `Config`
``NO_PRESET``      optional: name -> why there is no such preset
``TAGS_NOTE``      optional: which tags published numbers were made with
``train``          `train(config, out, resume, log) -> metrics`
``load_method``    `load_method(facts, state) -> Method` that predicts, from a weights file
``load_views``     `load_views(facts) -> Views`: how that method looks at images
``load_released``  optional: `load_released(state) -> (Method, Config)`, from the authors' file
``views``          with `load_released`: `views(config) -> Views`
=================  ================================================================================

Recipes of one stage are made by `wsss_lab.runs.end_to_end`.
"""
