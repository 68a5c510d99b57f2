#!/bin/sh
# Measures servers on this machine side by side: the highest rate of requests whose 99th
# percentile stays under an objective, for one step of an LSTM of 256 units with its state
# and for whole sequences of 100 steps. One server runs at a time, on loopback, and shares
# the cores with the generator.
#
#   bench/serve/run.sh [MODEL...]
#
# MODEL         step256, sequence256 or step1024x2 (default the first two)
# SLO_step256   the objective (default 10ms; of sequence256 50ms, of step1024x2 50ms)
# DURATION      of a trial of the search (default 3s)
# SESSIONS      sequences at a time, of steps (default 64)
# PYTHON        with numpy, onnx, onnxruntime, uvicorn, uvloop, httptools and orjson
#               (default one that is made in .peers/serve)
# SERVERS       which: carousel uvicorn uvicorn2 uvicorn-batch node node2 (default all that start;
#               2: two threads, and for whole sequences of uvicorn two processes as well: uvicorn-procs)
set -eu
cd "$(dirname "$0")/../.."
out=.peers/serve
mkdir -p "$out"
if [ -z "${PYTHON:-}" ]; then
	PYTHON=$out/venv/bin/python
	if [ ! -x "$PYTHON" ]; then
		python3 -m venv "$out/venv"
		"$PYTHON" -m pip install --quiet numpy onnx onnxruntime uvicorn uvloop httptools orjson
	fi
fi
case $PYTHON in
*/*) PYTHON=$(cd "$(dirname "$PYTHON")" && pwd)/$(basename "$PYTHON") ;;
esac
CGO_ENABLED=0 go build -trimpath -o "$out/carousel" ./cmd/carousel
[ -f "$out/models/step1024x2.onnx" ] || "$PYTHON" bench/serve/make_models.py "$out/models"
models=$PWD/$out/models
table=$out/results.txt
: >"$table"
pid=
trap '[ -z "$pid" ] || kill "$pid" 2>/dev/null' EXIT
trap 'exit 130' INT TERM

# start NAME PORT MODEL starts a server in the background; its process is $pid.
start() {
	export SERVE_PORT="$2" SERVE_MODELS="$models/$3.onnx" SERVE_THREADS=1 SERVE_WORKERS=1 SERVE_BATCH=0
	case $1 in
	*2) SERVE_THREADS=2 ;;
	*-batch) SERVE_BATCH=1 ;;
	*-procs) SERVE_WORKERS=2 ;;
	esac
	case $1 in
	carousel) "$out/carousel" serve "$models/$3.onnx=$3" --http "127.0.0.1:$2" >"$out/$1.log" 2>&1 & ;;
	uvicorn*) (cd bench/serve && exec "$PYTHON" ort_uvicorn.py) >"$out/$1.log" 2>&1 & ;;
	node*) node bench/serve/ort_node.mjs >"$out/$1.log" 2>&1 & ;;
	*) echo "unknown server $1" >&2; exit 2 ;;
	esac
	pid=$!
}

# ready PORT MODEL waits for a server.
ready() {
	for _ in $(seq 100); do
		kill -0 "$pid" 2>/dev/null || return 1
		"$PYTHON" -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:$1/v2/models/$2', timeout=1)" 2>/dev/null && return 0
		sleep 0.2
	done
	return 1
}

port=18101
for model in ${*:-step256 sequence256}; do
	case $model in
	sequence*) load="--shape x=1,100,8" slo=50ms all="carousel uvicorn uvicorn2 uvicorn-procs node node2" ;;
	step1024*) load="--sessions ${SESSIONS:-64}" slo=50ms all="carousel uvicorn uvicorn2 uvicorn-batch node node2" ;;
	*) load="--sessions ${SESSIONS:-64}" slo=10ms all="carousel uvicorn uvicorn2 uvicorn-batch node node2" ;;
	esac
	eval "slo=\${SLO_$model:-$slo}"
	for server in ${SERVERS:-$all}; do
		case " $all " in *" $server "*) ;; *) continue ;; esac
		port=$((port + 1))
		start "$server" "$port" "$model"
		if ! ready "$port" "$model"; then
			echo "$server does not start; see $out/$server.log" >&2
			kill "$pid" 2>/dev/null || true
			pid=
			continue
		fi
		"$PYTHON" bench/serve/answers.py "http://127.0.0.1:$port" "$model" "$models"
		# shellcheck disable=SC2086
		if "$out/carousel" loadtest "http://127.0.0.1:$port" --model "$model" $load --slo "$slo" --rate 50 --duration "${DURATION:-3s}" --warmup 2s --json >"$out/$server-$model.json"; then
			"$PYTHON" - "$out/$server-$model.json" "$server" "$model" "$slo" <<'END' >>"$table"
import json, sys
r = json.load(open(sys.argv[1]))
print(*sys.argv[2:], round(r["rate"], 1), round(r["latency"]["p50_ms"], 3), round(r["latency"]["p99_ms"], 3), round(r.get("batch", 0), 2), round(r.get("cpu_us", 0), 1))
END
			tail -1 "$table"
		else
			echo "$server: no result for $model" >&2
		fi
		kill "$pid"
		wait "$pid" 2>/dev/null || true
		pid=
	done
done
"$PYTHON" - "$table" <<'END'
import sys
rows = [line.split() for line in open(sys.argv[1])]
own = {r[1]: float(r[3]) for r in rows if r[0] == "carousel"}
print("| model | p99 at most | server | requests/s | carousel's, times | p50 ms | p99 ms | mean batch | generator's us |")
print("|---|---|---|---:|---:|---:|---:|---:|---:|")
for server, model, slo, rate, p50, p99, batch, cpu in rows:
    ratio = f"{own[model] / float(rate):.2f}" if model in own else "-"
    print(f"| {model} | {slo} | {server} | {rate} | {ratio} | {p50} | {p99} | {batch} | {cpu} |")
END
