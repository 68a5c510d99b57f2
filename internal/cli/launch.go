package cli

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/carousel-ml/carousel/dist"
	"github.com/carousel-ml/carousel/report"
)

// launch is what the command launch starts: ranks of a job on this machine, which is one of its
// nodes.
type launch struct {
	node  *dist.Node
	ranks int      // of each node
	args  []string // of each rank's command
}

func (a *app) launchCommand() *cobra.Command {
	var n int
	c := &cobra.Command{
		Use:   "launch -n N [flags] -- train TASK ...",
		Short: "Train with several processes of this machine",
		Long: `Starts N processes of this program, called ranks, which train one model together. Each rank
takes batches of its own and all add their gradients, so a step has N times as many batches:
"launch -n 2 -- train TASK ..." leaves the same bits as "train TASK ... --accumulate 2".

Rank 0 shows the progress and writes the model. What another rank has to say begins with its
number. Ctrl-C reaches all ranks once, and they leave a checkpoint; a second one ends them.
When a rank fails, all end, and the last line names the one that failed first.

On several machines, the launcher that is there starts the ranks: Slurm, Kubernetes, torchrun
or mpirun. "train" finds its place in their variables.`,
		Example: `  carousel launch -n 2 -- train classify --data reviews.csv --out run
  carousel launch -n 2 --threads 4 -- train forecast --data sales.csv --time date --target units --out run`,
		GroupID: groupWork,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return misusef("launch needs a training, as in carousel launch -n 2 -- train TASK ...; see carousel launch --help")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error { return a.launch(c, n, args) },
	}
	c.Flags().IntVarP(&n, "ranks", "n", 0, "start `n` ranks (under Kubeflow's torch policy: default as many as it wants on a node)")
	c.Flags().SetInterspersed(false) // the flags behind the first word are the training's
	return c
}

// launch checks the training of args, starts n ranks of it and waits for them.
func (a *app) launch(c *cobra.Command, n int, args []string) error {
	l, err := launchOf(n, c.Flags().Changed("ranks"))
	if err != nil {
		return err
	}
	if err := unknownCommand(c.Root(), args); err != nil {
		return err
	}
	task, flags, err := c.Root().Find(args)
	if err != nil {
		return err
	}
	if !task.HasParent() || task.Parent().CommandPath() != "carousel train" {
		return misusef("launch starts trainings, as in carousel launch -n 2 -- train TASK ...; got %q", strings.Join(args, " "))
	}
	l.args = slices.Clone(args[:len(args)-len(flags)])
	c.InheritedFlags().VisitAll(func(f *pflag.Flag) { // given before the training
		if f.Changed {
			l.args = append(l.args, "--"+f.Name+"="+f.Value.String())
		}
	})
	l.args = append(l.args, flags...)
	switch err := task.ParseFlags(flags); {
	case errors.Is(err, pflag.ErrHelp):
		return task.Help()
	case err != nil:
		return task.FlagErrorFunc()(task, err)
	}
	a.ranks = l.node.Size * l.ranks
	for _, check := range []func(*cobra.Command, []string) error{task.Args, a.start, task.PreRunE} {
		if err := check(task, task.Flags().Args()); err != nil {
			return err
		}
	}
	if cores := runtime.GOMAXPROCS(0); l.ranks > cores {
		a.remark(fmt.Sprintf("%s share %s; more ranks than cores are no faster", report.Plural(l.ranks, "rank"), report.Plural(cores, "core")))
	}
	return a.startRanks(l)
}

// launchOf is a launch of n ranks; given reports whether n was.
func launchOf(n int, given bool) (*launch, error) {
	node, err := dist.FindNode(os.Getenv)
	switch {
	case err != nil:
		return nil, misusef("%v", err)
	case given && n < 1:
		return nil, wrongFlag("ranks", "--ranks %d: want the number of processes, 1 or more", n)
	case node == nil && !given:
		return nil, wrongFlag("ranks", "launch needs -n, the number of processes, as in carousel launch -n 2 -- train TASK ...")
	case node == nil:
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		node = &dist.Node{Size: 1, Address: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), Secret: []byte(rand.Text())}
	case !given && node.Processes == 0:
		return nil, wrongFlag("ranks", "PET_NPROC_PER_NODE is no number; give -n, the number of processes on each node")
	case !given:
		n = node.Processes
	case node.Processes > 0 && node.Processes != n:
		return nil, wrongFlag("ranks", "--ranks %d: PET_NPROC_PER_NODE wants %d on each node; leave -n out", n, node.Processes)
	}
	return &launch{node: node, ranks: n}, nil
}

// freePort is a port of this machine on which nobody listens. It is below those that systems
// give to outgoing connections, so that none of these takes it before rank 0 does.
func freePort() (port int, err error) {
	for range 100 {
		port = 20000 + mathrand.IntN(12000)
		var l net.Listener
		if l, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("no free port for the ranks: %w", err)
}

// rankProcess is a rank that was started.
type rankProcess struct {
	*exec.Cmd
	rank   int
	said   *rankLines // nil: its standard error is the launcher's
	asked  os.Signal  // with which it was asked to end; nil: it was not
	ended  bool
	killed bool // by the launcher
	stuck  bool // killed because it did not end after another had failed
}

// graceAfterFailure is the time in which ranks end by themselves after one has failed: they
// notice it by their connections. Those that are not connected yet are then asked to end,
// and killed after the same time again.
const graceAfterFailure = 5 * time.Second

// startRanks starts the ranks and waits until all have ended.
func (a *app) startRanks(l *launch) error {
	runtime.LockOSThread() // the system ends the ranks when the thread that started them is gone
	defer runtime.UnlockOSThread()
	a.catching.Store(true)
	defer a.catching.Store(false)
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, endings()...)
	defer signal.Stop(signals)

	var printing sync.Mutex
	var ranks, failed []*rankProcess
	each := func(do func(*rankProcess)) {
		for _, r := range ranks {
			if !r.ended {
				do(r)
			}
		}
	}
	kill := func(r *rankProcess) {
		r.killed = true
		killGroup(r.Cmd)
	}
	for i := range l.ranks {
		r := a.rankProcess(l, i, &printing)
		if err := r.Start(); err != nil {
			each(kill)
			return fmt.Errorf("rank %d cannot be started: %w", r.rank, err)
		}
		ranks = append(ranks, r)
	}
	object := a.json
	a.json = false // rank 0 prints it
	ended := make(chan *rankProcess, l.ranks)
	for _, r := range ranks {
		go func() {
			_ = r.Wait() // ProcessState says more
			ended <- r
		}()
	}
	var late <-chan time.Time
	asked := 0 // times
	for left := len(ranks); left > 0; {
		select {
		case r := <-ended:
			left--
			r.ended = true
			if r.said != nil {
				r.said.end()
			}
			if r.ProcessState.Success() {
				break
			}
			if status, ok := r.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == r.asked {
				r.killed = true // it did not listen yet
			}
			failed = append(failed, r)
			if late == nil { // after an interrupt, too: ranks wait for each other before they end
				late = time.After(graceAfterFailure)
			}
		case s := <-signals:
			if asked++; asked > 1 {
				each(kill)
			} else {
				each(func(r *rankProcess) {
					r.asked = s
					_ = r.Process.Signal(s)
				})
			}
		case <-late:
			if asked++; asked > 1 {
				each(func(r *rankProcess) { r.stuck = true; kill(r) })
			} else {
				each(func(r *rankProcess) { _ = r.Process.Signal(os.Interrupt) })
			}
			late = time.After(graceAfterFailure)
		}
	}
	if len(failed) == 0 {
		return nil
	}
	a.json = object && (ranks[0].rank > 0 || ranks[0].ProcessState.ExitCode() < 0)                // rank 0 is elsewhere, or may have printed none
	first := slices.MaxFunc(failed, func(x, y *rankProcess) int { return x.guilt() - y.guilt() }) // of equal ones the first that ended
	switch code := first.ProcessState.ExitCode(); {
	case code == exitInterrupted && !ranks[0].killed: // rank 0 has said how to go on
		return &launchFailed{code: exitInterrupted}
	case first.stuck:
		return &launchFailed{exitFailure, fmt.Sprintf("rank %d did not answer and was killed", first.rank)}
	case first.killed, code == exitInterrupted:
		return &launchFailed{exitInterrupted, "interrupted"}
	case code < 0:
		return &launchFailed{exitFailure, fmt.Sprintf("rank %d was ended by a signal (%v)", first.rank, first.ProcessState)}
	default:
		return &launchFailed{code, fmt.Sprintf("rank %d failed with exit code %d%s", first.rank, code, first.said.last())}
	}
}

// rankProcess is the i-th rank of a launch, not started yet.
func (a *app) rankProcess(l *launch, i int, printing *sync.Mutex) *rankProcess {
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	place := l.node.Place(i, l.ranks)
	r := &rankProcess{Cmd: exec.Command(self, l.args...), rank: place.Rank}
	r.Args[0], r.Env = os.Args[0], append(os.Environ(), place.Env()...)
	if r.rank == 0 {
		r.Stdout, r.Stderr = a.stdout, a.stderr
	} else {
		r.said = &rankLines{w: a.stderr, rank: r.rank, printing: printing}
		r.Stderr = r.said
		r.WaitDelay = time.Second // of a process that it left behind and that holds its standard error
	}
	ownGroup(r.Cmd)
	return r
}

// guilt orders ranks that failed by how likely the others failed because of them.
func (r *rankProcess) guilt() int {
	switch code := r.ProcessState.ExitCode(); {
	case r.stuck: // what others say of it may be that they do not hear it
		return 2
	case r.killed:
		return -2
	case code < 0: // by a signal
		return 6
	case code == exitInterrupted:
		return -1
	case code == exitMisuse && r.rank == 0: // the others may have found the same
		return 5
	case code == exitMisuse:
		return 4
	case r.said == nil: // it may have named another one
		return 1
	case r.said.namesAnother():
		return 0
	}
	return 3
}

// rankLines prints what a rank writes to its standard error, each line behind the rank's
// number. The line of its error is kept for the launcher's: most ranks fail because of
// another one.
type rankLines struct {
	w        io.Writer
	rank     int
	printing *sync.Mutex // of w
	rest     []byte      // of a line
	final    string      // the line of its error
}

func (p *rankLines) Write(b []byte) (int, error) {
	p.rest = append(p.rest, b...)
	for {
		line, rest, whole := bytes.Cut(p.rest, []byte("\n"))
		if !whole {
			return len(b), nil
		}
		p.rest = rest
		p.line(string(line))
	}
}

func (p *rankLines) line(text string) {
	if final, is := strings.CutPrefix(text, "carousel: "); is {
		p.final = final
		return
	}
	p.printing.Lock()
	defer p.printing.Unlock()
	fmt.Fprintf(p.w, "[rank %d] %s\n", p.rank, text)
}

// end takes a last line without an end.
func (p *rankLines) end() {
	if len(p.rest) > 0 {
		p.line(string(p.rest))
		p.rest = nil
	}
}

// namesAnother reports whether the rank ended because of another one.
func (p *rankLines) namesAnother() bool {
	var rank int
	_, err := fmt.Sscanf(p.final, "rank %d", &rank)
	return err == nil && rank != p.rank
}

// last is the rank's error, to stand behind a sentence; "" if there is none, or if the
// terminal has it.
func (p *rankLines) last() string {
	if p == nil || p.final == "" {
		return ""
	}
	return ": " + p.final
}

// launchFailed is the end of a launch of which a rank failed.
type launchFailed struct {
	code int
	text string // "": all has been said
}

func (e *launchFailed) Error() string { return e.text }
