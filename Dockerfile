# uffdlab with JupyterLab and Debian's kernels, for a user without root:
#
#   docker build --tag uffdlab .
#   docker run --rm --publish 127.0.0.1:8888:8888 uffdlab        (then open the address that it prints)
#
# It works with Docker's default capabilities and a /dev/shm of 64 MB. With `--device /dev/kvm` guests run on KVM.
# Debian's kernels are always inside. KERNELS are compiled here, some minutes: by default those that the notebook boots;
# `--build-arg KERNELS=` leaves them out.

FROM debian:bookworm-slim AS build
COPY vm/install-packages vm/packages.txt /src/vm/
RUN /src/vm/install-packages demo
COPY . /src
# JupyterHub and Binder start their own servers: jupyterhub-singleuser, jupyter notebook.
RUN python3 -m venv /opt/uffdlab \
    && /opt/uffdlab/bin/pip install --no-cache-dir --disable-pip-version-check /src jupyterhub notebook
RUN /opt/uffdlab/bin/uffdlab kernel share /srv/uffdlab debian/bookworm debian/trixie debian/trixie-backports
ARG KERNELS="6.1-as-posted 6.1-series"
RUN [ -z "$KERNELS" ] || /opt/uffdlab/bin/uffdlab kernel share /srv/uffdlab $KERNELS

FROM debian:bookworm-slim
COPY vm/install-packages vm/packages.txt /opt/uffdlab/vm/
RUN /opt/uffdlab/vm/install-packages run && rm -rf /var/lib/apt/lists/* /opt/uffdlab/build
# Binder chooses the name and the number of the user.
ARG NB_USER=uffdlab
ARG NB_UID=1000
RUN useradd --uid "$NB_UID" --create-home --shell /bin/bash "$NB_USER"
COPY --from=build /opt/uffdlab /opt/uffdlab
COPY --from=build /srv/uffdlab /srv/uffdlab
ENV PATH=/opt/uffdlab/bin:$PATH UFFDLAB_IMAGES=/srv/uffdlab
USER $NB_UID
WORKDIR /home/$NB_USER
RUN uffdlab lab --copy-only notebooks
EXPOSE 8888
CMD ["uffdlab", "lab", "notebooks", "--", "--ip=0.0.0.0", "--port=8888", "--no-browser"]
