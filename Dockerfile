# JupyterLab on the lessons, for a class: docker build -t cmllm_tools . && docker run --rm -p 8888:8888 cmllm_tools
FROM python:3.11-slim
WORKDIR /opt/cmllm_tools
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY cmllm_tools cmllm_tools
# torch first: alone, pip takes its CPU build where one is at hand.
RUN pip install --no-cache-dir -c constraints.txt torch \
    && pip install --no-cache-dir -c constraints.txt ".[attribution,notebook,paper]"
RUN useradd --create-home reader
COPY --chown=reader notebooks /home/reader/notebooks
USER reader
WORKDIR /home/reader/notebooks
EXPOSE 8888
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--no-browser"]
