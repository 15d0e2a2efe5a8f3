# Djinn itself: web, gateway, workers and beat. The image of the agents is runtime_image/Dockerfile.
ARG BASE_IMAGE=debian:bookworm-slim
FROM ${BASE_IMAGE}

RUN export DEBIAN_FRONTEND=noninteractive \
 && apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates git openssh-client python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*

# A private certificate authority that pip has to trust is a build secret or an argument of the build, never a layer:
#   docker build --secret id=pip-ca,src=ca.pem .
WORKDIR /srv/djinn
COPY requirements.txt ./
RUN --mount=type=secret,id=pip-ca,required=false \
    python3 -m venv .venv \
 && if [ -s /run/secrets/pip-ca ]; then export PIP_CERT=/run/secrets/pip-ca; fi \
 && .venv/bin/pip install --quiet --no-cache-dir --require-hashes -r requirements.txt

COPY manage.py ./
COPY djinn/ djinn/
COPY runtime_image/ runtime_image/
# What Djinn makes is read by its own user only.
ENTRYPOINT ["sh", "-c", "umask 077 && exec \"$@\"", "djinn"]
ENV PATH=/srv/djinn/.venv/bin:$PATH PYTHONUNBUFFERED=1
CMD ["python", "manage.py", "check"]
