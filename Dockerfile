# Serves trained weights over REST: docker build -t zoo-serve . && docker run -p 8501:8501 zoo-serve lenet5.mnist
# Weights of your own: docker run -p 8501:8501 -v "$PWD/saved_models:/home/zoo/saved_models:ro" zoo-serve NAME.TAG
FROM python:3.12-slim

RUN useradd --create-home zoo
WORKDIR /src
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY zoo zoo
COPY saved_models saved_models
RUN pip install --no-cache-dir '.[serve]'

USER zoo
WORKDIR /home/zoo
ENV CUDA_VISIBLE_DEVICES=-1 TF_CPP_MIN_LOG_LEVEL=3
EXPOSE 8501
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8501/readyz', timeout=5)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["zoo", "serve", "--host", "0.0.0.0", "--port", "8501"]
CMD ["lenet5.mnist"]
