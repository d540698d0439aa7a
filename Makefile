UV := .venv/bin/uv
e:
	true
