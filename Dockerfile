# wpl_d2 on NVIDIA GPUs: torch's packages bring the CUDA libraries, the base image what they need of the driver.
FROM nvidia/cuda:13.0.0-base-ubuntu24.04
RUN apt-get update && apt-get install -y --no-install-recommends make python3 python3-venv && rm -rf /var/lib/apt/lists/*
WORKDIR /wpl_d2
# What the environment is made of, which changes less often than the code.
COPY requirements requirements
COPY Makefile README.md pyproject.toml setup.py ./
COPY wpl_d2/__init__.py wpl_d2/
RUN make setup && rm -rf /root/.cache
COPY . .
ENV PATH=/wpl_d2/.venv/bin:$PATH
CMD ["bash"]
