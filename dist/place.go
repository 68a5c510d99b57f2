package dist

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"net"
	"strconv"
	"strings"
)

// Place is where a launcher put this process among the ranks of its job.
type Place struct {
	Rank, Size           int    // from 0; number of ranks
	LocalRank, LocalSize int    // among the ranks of this machine; LocalSize is 0 where it is unknown
	Address              string // host:port at which rank 0 listens, for TCP
	Secret               []byte // text that the ranks of a job know and strangers do not, for TCP
	Launcher             string // its name, for messages
	MPI                  bool   // ranks meet through an MPI library, not through Address
}

// Find returns where a launcher put this process, or nil if it trains alone: no
// launcher has set its variables, the job has one rank, or CAROUSEL_ALONE is 1. It
// reads variables through getenv, such as os.Getenv. Of several launchers the first
// in this list counts, since it is the innermost one where they are nested:
//
//   - carousel launch: CAROUSEL_RANK, CAROUSEL_RANKS, CAROUSEL_ADDRESS (host:port of
//     rank 0), CAROUSEL_SECRET; CAROUSEL_LOCAL_RANK and CAROUSEL_LOCAL_RANKS.
//   - torchrun, and what sets its variables: RANK, WORLD_SIZE, MASTER_ADDR,
//     MASTER_PORT; LOCAL_RANK and LOCAL_WORLD_SIZE. Where torchrun itself listens at
//     MASTER_PORT (TORCHELASTIC_USE_AGENT_STORE is True; so in 2.15), rank 0 takes
//     the next port.
//   - mpirun of Open MPI: OMPI_COMM_WORLD_RANK, _SIZE, _LOCAL_RANK, _LOCAL_SIZE.
//   - mpirun of MPICH and Intel MPI: PMI_RANK, PMI_SIZE, MPI_LOCALRANKID,
//     MPI_LOCALNRANKS.
//   - Slurm's srun: SLURM_STEP_ID, SLURM_STEP_NUM_TASKS, SLURM_PROCID,
//     SLURM_STEP_NODELIST, of which the first node has rank 0; SLURM_LOCALID. The
//     port follows from the numbers of job and step. A batch script itself is no
//     rank. Whatever PMI srun offers, ranks meet over TCP, unless CAROUSEL_MPI names
//     an MPI library.
//   - other launchers of MPI: PMI_RANK and PMI_SIZE.
//   - Kubeflow's torch policy: PET_NNODES, PET_NODE_RANK, PET_MASTER_ADDR,
//     PET_MASTER_PORT, with one process a node; see [FindNode] for several.
//   - Kubeflow's jax policy: JAX_NUM_PROCESSES, JAX_PROCESS_ID,
//     JAX_COORDINATOR_ADDRESS.
//
// CAROUSEL_ADDRESS replaces the address of any launcher, for a port that is taken
// or another network, and must be the same on all ranks; so does CAROUSEL_SECRET
// the secret. Without it, the secret is a hash of what the ranks know of their job:
// the address and torchrun's run or Slurm's job. This keeps ranks of different jobs
// apart and turns away whatever else connects by accident. It does not keep out
// who may look up these names, such as other users of a cluster: set
// CAROUSEL_SECRET, from Kubernetes' secrets for instance.
//
// The error is one line that names the variable: it is missing beside others of its
// launcher, is not a number, or contradicts another one.
func Find(getenv func(string) string) (*Place, error) {
	e := &env{get: getenv}
	if e.flag("CAROUSEL_ALONE") || e.err != nil {
		return nil, e.err
	}
	var p *Place
	switch {
	case e.any("CAROUSEL_RANK", "CAROUSEL_RANKS"):
		p = e.ranks(Launch, "CAROUSEL_RANK", "CAROUSEL_RANKS", "CAROUSEL_LOCAL_RANK", "CAROUSEL_LOCAL_RANKS")
		p.Address = e.text("CAROUSEL_ADDRESS")
		e.text("CAROUSEL_SECRET")
	case e.any("TORCHELASTIC_RUN_ID") || e.any("RANK") && e.any("WORLD_SIZE"):
		p = e.torch()
	case e.any("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"):
		p = e.ranks("Open MPI's mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE")
		p.MPI = true
	case e.any("MPI_LOCALRANKID", "MPI_LOCALNRANKS"):
		p = e.ranks("MPICH's mpirun", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS")
		p.MPI = true
	case e.any("SLURM_STEP_ID") && e.any("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"):
		p = e.slurm()
	case e.any("PMI_RANK", "PMI_SIZE"):
		p = e.ranks("a launcher of MPI", "PMI_RANK", "PMI_SIZE", "PMI_LOCAL_RANK", "PMI_LOCAL_SIZE")
		p.MPI = true
	case e.any("PET_NNODES", "PET_NODE_RANK"):
		node := e.node()
		p = node.Place(0, 1)
		p.Launcher = kubeflowTorch
		if n := node.Processes; n > 1 && e.err == nil {
			e.fail("PET_NPROC_PER_NODE", "%d processes a node, but this is the only one here: start them by 'carousel launch -- train ...'", n)
		}
	case e.any("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"):
		p = e.ranks(kubeflowJax, "JAX_PROCESS_ID", "JAX_NUM_PROCESSES", "", "")
		p.Address = e.text("JAX_COORDINATOR_ADDRESS")
		p.Secret = secretOf("jax", p.Address)
	default:
		if getenv("CAROUSEL_ADDRESS") != "" {
			e.fail("CAROUSEL_ADDRESS", "is set, but no launcher has given this process a number: set CAROUSEL_RANK and CAROUSEL_RANKS too")
		}
		if getenv("MASTER_ADDR") != "" && e.any("RANK", "WORLD_SIZE") {
			e.text("RANK")
			e.text("WORLD_SIZE")
		}
		return nil, e.err
	}
	e.replace(&p.Address, &p.Secret)
	if p.MPI {
		p.Address, p.Secret = "", nil
	} else if e.err == nil && p.Size > 1 {
		e.checkAddress(p)
	}
	if e.err != nil || p.Size == 1 {
		return nil, e.err
	}
	return p, nil
}

// Node is a machine on which a launcher started one process, which starts the ranks.
type Node struct {
	Rank, Size int    // from 0; number of nodes
	Processes  int    // that the launcher wants on each node; 0: it leaves that open
	Address    string // host:port at which rank 0 listens
	Secret     []byte // of the job
}

// Launch is the Launcher of places that 'carousel launch' gives.
const Launch = "carousel launch"

// Names of other launchers.
const (
	kubeflowTorch = "Kubeflow's torch policy"
	kubeflowJax   = "Kubeflow's jax policy"
)

// FindNode returns the node of a launcher that leaves the ranks of a machine to
// 'carousel launch', or nil: Kubeflow's torch policy with PET_NPROC_PER_NODE. The
// error is as Find's.
func FindNode(getenv func(string) string) (*Node, error) {
	e := &env{get: getenv}
	if e.any("CAROUSEL_RANK", "CAROUSEL_RANKS", "RANK") || !e.any("PET_NNODES", "PET_NODE_RANK") {
		return nil, nil
	}
	n := e.node()
	e.replace(&n.Address, &n.Secret)
	if e.err != nil {
		return nil, e.err
	}
	return n, nil
}

// Place returns where the local-th of n processes of the node is, if all nodes have
// n.
func (n *Node) Place(local, processes int) *Place {
	return &Place{
		Rank: n.Rank*processes + local, Size: n.Size * processes, LocalRank: local, LocalSize: processes,
		Address: n.Address, Secret: n.Secret, Launcher: Launch,
	}
}

// Env returns the variables, as NAME=value, by which Find returns the place, of the
// launcher 'carousel launch', in a process that has them.
func (p *Place) Env() []string {
	local, locals := "", ""
	if p.LocalSize > 0 {
		local, locals = strconv.Itoa(p.LocalRank), strconv.Itoa(p.LocalSize)
	}
	return []string{
		"CAROUSEL_ALONE=",
		"CAROUSEL_RANK=" + strconv.Itoa(p.Rank),
		"CAROUSEL_RANKS=" + strconv.Itoa(p.Size),
		"CAROUSEL_LOCAL_RANK=" + local,
		"CAROUSEL_LOCAL_RANKS=" + locals,
		"CAROUSEL_ADDRESS=" + p.Address,
		"CAROUSEL_SECRET=" + string(p.Secret),
	}
}

// env reads variables and keeps the first error.
type env struct {
	get func(string) string
	err error
}

func (e *env) fail(name, format string, args ...any) {
	if e.err == nil {
		e.err = fmt.Errorf("%s: %s (CAROUSEL_ALONE=1 trains without other ranks)", name, fmt.Sprintf(format, args...))
	}
}

// any reports whether one of the variables is set.
func (e *env) any(names ...string) bool {
	for _, name := range names {
		if e.get(name) != "" {
			return true
		}
	}
	return false
}

// text returns a variable that has to be set.
func (e *env) text(name string) string {
	v := e.get(name)
	if v == "" {
		e.fail(name, "is not set, but others of its launcher are: all have to be")
	}
	return v
}

// flag reports whether a variable is on.
func (e *env) flag(name string) bool {
	v := e.get(name)
	if v == "" {
		return false
	}
	on, err := strconv.ParseBool(v)
	if err != nil {
		e.fail(name, "expected 1 or 0, got %q", v)
	}
	return on
}

// number returns a variable that has to be a number from lo to hi; hi < lo: from lo.
func (e *env) number(name string, lo, hi int) int {
	v := e.text(name)
	n, err := strconv.Atoi(v)
	if v != "" && (err != nil || n < lo || hi >= lo && n > hi) {
		want := fmt.Sprintf("%d or more", lo)
		if hi >= lo {
			want = fmt.Sprintf("from %d to %d", lo, hi)
		}
		e.fail(name, "expected a number, %s, got %q", want, v)
	}
	return max(n, lo)
}

// ranks reads a rank and a size, which have to be there, and local ones, which may.
func (e *env) ranks(launcher, rank, size, localRank, localSize string) *Place {
	p := &Place{Launcher: launcher, Size: e.number(size, 1, 0)}
	p.Rank = e.below(rank, size, p.Size)
	if localRank != "" && e.any(localRank, localSize) {
		p.LocalSize = e.number(localSize, 1, 0)
		p.LocalRank = e.below(localRank, localSize, p.LocalSize)
	}
	return p
}

// below returns a number that has to be below another variable's.
func (e *env) below(name, of string, n int) int {
	i := e.number(name, 0, -1)
	if e.err == nil && i >= n {
		e.fail(name, "%d is not below %s, %d", i, of, n)
	}
	return i
}

// torch is the place that torchrun's variables give.
func (e *env) torch() *Place {
	launcher := "torchrun"
	if !e.any("TORCHELASTIC_RUN_ID") {
		launcher = "a launcher of PyTorch"
	}
	p := e.ranks(launcher, "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
	if p.Size == 1 {
		return p // may lack the rest
	}
	port := e.number("MASTER_PORT", 1, 65534)
	if e.get("TORCHELASTIC_USE_AGENT_STORE") == "True" {
		port++
	}
	p.Address = net.JoinHostPort(e.text("MASTER_ADDR"), strconv.Itoa(port))
	p.Secret = secretOf("torch", p.Address, e.get("TORCHELASTIC_RUN_ID"), e.get("TORCHELASTIC_RESTART_COUNT"))
	return p
}

// node is the node that Kubeflow's torch policy gives.
func (e *env) node() *Node {
	n := &Node{Size: e.number("PET_NNODES", 1, 0)}
	n.Rank = e.below("PET_NODE_RANK", "PET_NNODES", n.Size)
	if v, err := strconv.Atoi(e.get("PET_NPROC_PER_NODE")); err == nil { // else auto, cpu or gpu
		n.Processes = max(v, 0)
	}
	n.Address = net.JoinHostPort(e.text("PET_MASTER_ADDR"), strconv.Itoa(e.number("PET_MASTER_PORT", 1, 65535)))
	n.Secret = secretOf("torch", n.Address)
	return n
}

// slurm is the place of a task that srun started.
func (e *env) slurm() *Place {
	p := e.ranks("Slurm", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "", "")
	if p.Size == 1 {
		return p
	}
	if e.any("SLURM_LOCALID") {
		p.LocalRank = e.number("SLURM_LOCALID", 0, -1)
		node, err := strconv.Atoi(e.get("SLURM_NODEID"))
		if tasks := slurmCounts(e.get("SLURM_STEP_TASKS_PER_NODE")); err == nil && node >= 0 && node < len(tasks) && p.LocalRank < tasks[node] {
			p.LocalSize = tasks[node]
		}
	}
	job, step := e.text("SLURM_JOB_ID"), e.text("SLURM_STEP_ID")
	first := slurmFirst(e.text("SLURM_STEP_NODELIST"))
	if first == "" {
		e.fail("SLURM_STEP_NODELIST", "expected host names, as in gpu[01-03,7],login, got %q", e.get("SLURM_STEP_NODELIST"))
		return p
	}
	// Not a port that systems give to outgoing connections, from 32768 on by
	// Linux' default.
	h := fnv.New32a()
	fmt.Fprintf(h, "%s.%s", job, step)
	p.Address = net.JoinHostPort(first, strconv.Itoa(15000+int(h.Sum32()%16000)))
	p.Secret = secretOf("slurm", p.Address, job, step, e.get("SLURM_JOB_START_TIME"), e.get("SLURM_STEP_LAUNCHER_PORT"))
	p.MPI = e.any("CAROUSEL_MPI")
	return p
}

// slurmFirst returns the first of Slurm's list of host names, gpu01 of
// "gpu[01-03,7],login"; names may have several brackets. It returns "" for what is
// not such a list.
func slurmFirst(list string) string {
	var name strings.Builder
	for list != "" && list[0] != ',' {
		head, rest := list, ""
		if i := strings.IndexAny(list, "[,"); i >= 0 {
			head, rest = list[:i], list[i:]
		}
		name.WriteString(head)
		if list = rest; strings.HasPrefix(list, "[") {
			numbers, rest, closed := strings.Cut(list[1:], "]")
			first := numbers
			if i := strings.IndexAny(numbers, "-,"); i >= 0 {
				first = numbers[:i]
			}
			if _, err := strconv.ParseUint(first, 10, 64); err != nil || !closed {
				return ""
			}
			name.WriteString(first)
			list = rest
		}
	}
	return name.String()
}

// slurmCounts expands Slurm's numbers of tasks by node: "2(x3),1". It returns nil
// for what is not such a list.
func slurmCounts(list string) []int {
	var counts []int
	for part := range strings.SplitSeq(list, ",") {
		text, times, repeated := strings.Cut(part, "(x")
		n, err := strconv.Atoi(text)
		again := 1
		if repeated && err == nil {
			again, err = strconv.Atoi(strings.TrimSuffix(times, ")"))
		}
		if err != nil || again < 1 || again > 1<<16 {
			return nil
		}
		for range again {
			counts = append(counts, n)
		}
	}
	return counts
}

// replace takes the user's address and secret instead of a launcher's.
func (e *env) replace(address *string, secret *[]byte) {
	if v := e.get("CAROUSEL_ADDRESS"); v != "" {
		*address = v
	}
	if v := e.get("CAROUSEL_SECRET"); v != "" {
		*secret = []byte(v)
	}
}

// checkAddress wants host:port.
func (e *env) checkAddress(p *Place) {
	host, port, err := net.SplitHostPort(p.Address)
	if n, bad := strconv.Atoi(port); err != nil || bad != nil || host == "" || n < 1 || n > 65535 {
		name := "CAROUSEL_ADDRESS"
		if p.Launcher == kubeflowJax && !e.any(name) {
			name = "JAX_COORDINATOR_ADDRESS"
		}
		e.fail(name, "expected host:port of rank 0, got %q", p.Address)
	}
}

// secretOf is the secret that follows from what the ranks of a job know.
func secretOf(parts ...string) []byte {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\n")))
	return []byte(hex.EncodeToString(sum[:]))
}
