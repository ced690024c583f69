# Two stages: the first builds a virtual environment from the locks (hashes checked), the second carries only that.
# Runs as nobody in particular, on a read-only root; the one place it writes is /var/lib/ztproxy.
#
#   docker build -t ztproxy .
#   docker run --read-only --cap-drop ALL --security-opt no-new-privileges \
#     -v ./ztproxy.yaml:/etc/ztproxy/ztproxy.yaml:ro -v ztproxy-state:/var/lib/ztproxy -p 8443:8443 ztproxy

FROM python:3.11-slim-bookworm AS build
WORKDIR /src
# gcc compiles the hot modules (ADR 0015); nothing of it, nor of what it takes, is in the second stage.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev \
 && python -m venv /opt/build && python -m venv /opt/ztproxy
COPY requirements.lock requirements-build.lock ./
RUN /opt/build/bin/pip install --no-cache-dir --require-hashes -r requirements-build.lock \
 && /opt/ztproxy/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY tools ./tools
COPY ztproxy ./ztproxy
RUN ZTPROXY_COMPILED=yes /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheel . \
 && /opt/ztproxy/bin/pip install --no-cache-dir --no-deps /wheel/*.whl \
 && /opt/ztproxy/bin/python -m compileall -q /opt/ztproxy/lib \
 && /opt/ztproxy/bin/pip uninstall -y pip setuptools

FROM python:3.11-slim-bookworm
RUN groupadd --gid 10001 ztproxy \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/ztproxy --shell /usr/sbin/nologin ztproxy \
 && install -d -o ztproxy -g ztproxy -m 0700 /var/lib/ztproxy
COPY --from=build /opt/ztproxy /opt/ztproxy
ENV PATH=/opt/ztproxy/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
VOLUME /var/lib/ztproxy
EXPOSE 8443 9902
# `exec` form: ztproxy is process 1 and gets SIGTERM itself, so that it can drain.
ENTRYPOINT ["ztproxy"]
CMD ["run", "/etc/ztproxy/ztproxy.yaml"]
