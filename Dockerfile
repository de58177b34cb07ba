# One image for the three services: docker run punctual services.scheduler, services.dispatcher or services.executor.
#
# Pin the base in your fork by its digest, python:3.11.14-slim-bookworm@sha256:..., as your registry shows it. It has
# the Python that CI tests with; 3.12 and 3.13 will do too.
ARG BASE=python:3.11.14-slim-bookworm

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# Dependencies first: this layer changes with the lock file only. Wheels only, checked by their hashes.
COPY requirements.lock ./
RUN python -m venv --without-pip /opt/punctual \
    && python -m pip --python /opt/punctual/bin/python install --require-hashes --only-binary :all: -r requirements.lock
# hatchling, pinned in pyproject.toml, is fetched to build our own wheel and does not get into the image.
COPY pyproject.toml README.md ./
COPY libs libs
COPY services services
RUN python -m pip wheel --no-deps --wheel-dir /tmp/wheel . \
    && python -m pip --python /opt/punctual/bin/python install --no-deps /tmp/wheel/*.whl

FROM ${BASE}
LABEL org.opencontainers.image.title="Punctual" \
      org.opencontainers.image.description="A cron job scheduler for prompts"
COPY --from=build /opt/punctual /opt/punctual
# The root may be read-only: nothing writes outside of /tmp, and no code is looked for where one may write.
ENV PATH=/opt/punctual/bin:$PATH PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# A number, so that Kubernetes can tell that it is not root; it needs no entry in /etc/passwd.
USER 10001:10001
ENTRYPOINT ["python", "-m"]
CMD ["services.scheduler"]
