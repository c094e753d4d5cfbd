# Ridgeline on a GPU without privileges: docker build -t ridgeline . && docker run --rm --gpus all -v "$PWD:/out" ridgeline
# The image brings torch and Triton for CUDA from PyPI; the driver is the host's. Never built where this was written.
FROM python:3.12-slim

RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ git \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home ridgeline
COPY --chown=ridgeline . /src
USER ridgeline
RUN python -m venv /home/ridgeline/venv \
    && /home/ridgeline/venv/bin/pip install --no-cache-dir -c /src/constraints.txt '/src[run]'
ENV PATH=/home/ridgeline/venv/bin:$PATH \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /out
CMD ["ridgeline", "run", "quick"]
