"""The inspector: what people see at ``/``.

:mod:`.site` renders; :mod:`.pages` holds one module per page, ``templates/`` one template per page,
``static/`` the style sheets (cascade layers) and small ES modules. Every page is whole without a script;
scripts keep it up to date. A new page: a module with ``routes(site)``, a line in :data:`.pages.PAGES`, its
entry in :mod:`.nav`.
"""
