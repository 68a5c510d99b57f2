#!/usr/bin/env bash
# All that is to be learnt on a machine with a GPU, most important first, within a time of its
# own: bench/cuda/run.sh DIR [SECONDS]. It writes into DIR as it goes, and needs what
# "make cuda-bench" has built, and nothing else; PyTorch and compute-sanitizer are used where
# they are. Without a GPU it says what was left out.
set -u
cd "$(dirname "$0")/../.."
out=$1 limit=${2:-450}
built=.cuda-bench
mkdir -p "$out"
export XDG_CACHE_HOME=$out/../cuda-cache # compiled kernels, which are not results
mkdir -p "$XDG_CACHE_HOME"

left() { echo $((limit - SECONDS)); }
# stage NAME SECONDS COMMAND...: runs it for at most so long, and no longer than is left.
stage() {
	local name=$1 most=$2 from=$SECONDS
	shift 2
	if [ "$(left)" -lt 8 ]; then
		echo "== $name: left out, time is up" | tee -a "$out/summary.txt"
		return 1
	fi
	if [ "$(left)" -lt "$most" ]; then most=$(left); fi
	timeout -k 5 "$most" "$@" >"$out/$name.txt" 2>"$out/$name.err"
	local rc=$?
	echo "== $name: exit $rc after $((SECONDS - from)) s" | tee -a "$out/summary.txt"
	return $rc
}
show() { tail -n "${2:-3}" "$out/$1" 2>/dev/null | cut -c1-400 | tee -a "$out/summary.txt"; }

python=$(command -v python3 || true)
if [ -z "${CAROUSEL_CUDA_PATH:-}" ] && [ -n "$python" ]; then
	# The folders of NVIDIA's packages that this Python has.
	CAROUSEL_CUDA_PATH=$("$python" -c 'import glob, site, sys
print(":".join(d for p in sys.path + site.getsitepackages() for d in glob.glob(p + "/nvidia/*/lib")))' 2>/dev/null)
	export CAROUSEL_CUDA_PATH
fi
nvidia-smi >"$out/smi.txt" 2>&1
device=cuda small=1
stage doctor 60 "$built/carousel-dl" doctor --device cuda || show doctor.err
show doctor.txt 2
if grep -qE "no NVIDIA driver|shows no GPU|was not found" "$out/doctor.err"; then
	echo "there is no GPU: figures are those of the CPU, on small networks" | tee -a "$out/summary.txt"
	device=cpu small=16
fi
# The first figures, then whether they can be trusted, then all.
stage ours 75 "$built/cuda" -device $device -small $small -seconds 0.4 -stop 70s
show ours.txt 40
"$built/cuda" -small $small -list >"$out/contests.jsonl"
if [ $device = cuda ]; then
	CAROUSEL_TEST_CUDA=0 stage suite 90 "$built/cuda.test" -test.run '^TestDevice$' -test.v
	grep -E -- '--- FAIL|^(FAIL|PASS|ok)|panic:' "$out/suite.txt" | head -40 | tee -a "$out/summary.txt"
fi
if [ -n "$python" ] && "$python" -c 'import torch' 2>/dev/null; then
	stage pytorch 110 sh -c '"$0" bench/cuda/pytorch.py "$1" 0.4 100 <"$2"' "$python" "$out/ours.txt" "$out/contests.jsonl"
	show pytorch.txt 40
else
	echo "== pytorch: left out, there is none" | tee -a "$out/summary.txt"
fi
if [ $device = cuda ]; then
	stage doctor-own 30 "$built/carousel-dl" doctor --device cuda --deterministic; show doctor-own.err
	stage doctor-tf32 30 "$built/carousel-dl" doctor --device cuda --tf32; show doctor-tf32.err
fi
# A training, cut and resumed on the processor.
run=$out/../cuda-training
rm -rf "$run"
stage train 40 "$built/carousel-dl" train generate --data ARCHITECTURE.md --hidden 256 --epochs 40 --max-time 15s --device $device --out "$run"; show train.err; show train.txt 5
stage resume 40 "$built/carousel-dl" train generate --data ARCHITECTURE.md --hidden 256 --epochs 40 --max-time 25s --device cpu --resume --out "$run"; show resume.err; show resume.txt 5
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
if [ $device = cuda ] && [ -n "$sanitizer" ]; then
	for tool in memcheck racecheck; do
		stage "$tool" 60 "$sanitizer" --tool $tool --error-exitcode 9 "$built/carousel-dl" doctor --device cuda --deterministic
		show "$tool.txt" 4
	done
else
	echo "== compute-sanitizer: left out, there is none" | tee -a "$out/summary.txt"
fi
echo "all took $SECONDS s" | tee -a "$out/summary.txt"
