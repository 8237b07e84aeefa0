# Three images from one file; the default is the last, `cpu`.
#
#   docker build -t harness .                            # comparisons on CPUs
#   docker build --target cuda -t harness:cuda .         # comparisons on NVIDIA GPUs: docker run --gpus all …
#   docker build --target light -t harness:light .       # boards and plans alone, without torch
#   docker run --rm -v "$PWD/runs:/work/runs" harness compare first-look
#
# The folder that is mounted must be writable for the user 1000, or give --user "$(id -u)".

FROM python:3.11-slim-bookworm AS light
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 HOME=/work
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY harness harness
COPY plugins plugins
COPY configs configs
RUN pip install --constraint constraints.txt . \
    && useradd --uid 1000 --home-dir /work --create-home harness
WORKDIR /work
USER 1000
ENTRYPOINT ["harness"]
CMD ["--help"]

# PyPI's torch for Linux brings CUDA's libraries; the driver is the host's.
FROM light AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 0
RUN pip install --constraint /src/constraints.txt "/src[train]"
USER 1000

FROM light AS cpu
USER 0
RUN pip install --constraint /src/constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu "/src[train]"
USER 1000
