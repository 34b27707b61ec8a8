# The stand-alone server: keys come in through NOOBLY_API_KEYS, everything it stores goes to /data.
FROM python:3.11-slim

RUN useradd --system --uid 10001 --create-home noobly && install -d -o noobly -g noobly /data
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
RUN pip install --no-cache-dir -c constraints.txt '.[all]'

USER noobly
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health/ready', timeout=2)"]
ENTRYPOINT ["noobly", "serve", "--host", "0.0.0.0", "--port", "8000", "--data-dir", "/data"]
