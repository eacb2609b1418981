# auditor in a container, for CPUs (the default) or CUDA. docs/containers.md has how to build and use it.
FROM python:3.11-slim-bookworm AS python
ENV PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
ARG PIP_INDEX_URL=https://pypi.org/simple
WORKDIR /src
RUN python -m venv /opt/auditor
ENV PATH=/opt/auditor/bin:$PATH
COPY requirements.lock pyproject.toml ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" >needs.txt

FROM python AS cpu-packages
RUN pip install --no-deps --index-url https://download.pytorch.org/whl/cpu "$(grep '^torch==' requirements.lock)"
RUN pip install -c requirements.lock -r needs.txt
COPY . .
RUN pip install --no-deps .

FROM python AS cuda-packages
RUN pip install -c requirements.lock -r needs.txt
COPY . .
RUN pip install --no-deps .

FROM python:3.11-slim-bookworm AS auditor
# Whoever it runs as (docker run --user) may write there: models and readings, and the runs of whoever mounts nothing.
RUN useradd --no-create-home --home-dir /cache --uid 1000 auditor && install -d -m 1777 /cache /work
ENV PATH=/opt/auditor/bin:$PATH HOME=/cache PYTHONDONTWRITEBYTECODE=1
WORKDIR /work
VOLUME /cache
USER 1000
STOPSIGNAL SIGTERM
ENTRYPOINT ["auditor"]
CMD ["--help"]

FROM auditor AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=cuda-packages /opt/auditor /opt/auditor

FROM auditor AS cpu
COPY --from=cpu-packages /opt/auditor /opt/auditor
