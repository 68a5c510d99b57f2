package cli

import (
	"cmp"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/internal/bench"
	"github.com/carousel-ml/carousel/internal/device/compare"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/simd"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/tensor"
)

// doctorReport is the result of doctor.
type doctorReport struct {
	Version    string        `json:"version"`          // of carousel
	System     string        `json:"system"`           // operating system and architecture, as Go names them
	CPU        string        `json:"cpu,omitempty"`    // the processor, as the system names it
	Threads    int           `json:"threads"`          // with which it computes
	KernelSets []string      `json:"kernel_sets"`      // of this machine, the one that is used first
	CUDA       *cudaReport   `json:"cuda,omitempty"`   // what there is for GPUs; absent unless --device asks for one
	Checks     []deviceCheck `json:"checks,omitempty"` // devices that were compared; absent where there is none
	OK         bool          `json:"ok"`               // whether the device is there and computes what the reference does
}

// cudaReport is what the machine has for CUDA.
type cudaReport struct {
	Libraries []cudaLibrary `json:"libraries,omitempty"` // that are used
	GPUs      []gpu         `json:"gpus,omitempty"`      // by number, as in cuda:N
	Folders   []string      `json:"folders,omitempty"`   // where libraries were looked for, in order
	Notes     []string      `json:"notes,omitempty"`     // why something is not used
}

type cudaLibrary struct {
	Name    string `json:"name"`    // driver, NVRTC, cuBLASLt or cuDNN
	Version string `json:"version"` // of the driver, the CUDA that it knows
	Path    string `json:"path"`    // its file; of the driver perhaps a name that the dynamic linker finds
}

type gpu struct {
	Name            string `json:"name"`               // as the driver says
	Capability      string `json:"compute_capability"` // such as 9.0
	Multiprocessors int    `json:"multiprocessors"`    // number of them
	Memory          uint64 `json:"memory_bytes"`       // of the device
}

// deviceCheck is a device compared with another.
type deviceCheck struct {
	Device  string           `json:"device"`  // with its kernels
	Against string           `json:"against"` // the reference, likewise
	Results []compare.Result `json:"results"` // by operation
}

func (a *app) doctorCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Show what this machine computes on, and check that it computes rightly",
		Long: `Shows the processor and its kernel sets and, with --device cuda, the GPUs, the
libraries that were found, and where they were looked for. Then small cases of every
operation are computed twice, with the same numbers, and the differences are shown:
with each of the processor's kernel sets against plain Go, or with --device cuda on
the GPU against the processor.

The exit code is 1 if there is no such device, or if an operation differs by more than
its bound, which leaves room for another order of sums.`,
		Example: `  carousel doctor
  carousel-dl doctor --device cuda
  carousel-dl doctor --device cuda:1 --tf32 --json`,
		GroupID: groupAbout,
		Args:    noArgs,
		RunE:    func(*cobra.Command, []string) error { return a.doctor() },
	}
	a.computes.bind(c.Flags())
	return c
}

func (a *app) doctor() error {
	a.computes.hushed = true // the report has the notes
	r := &doctorReport{Version: carousel.Version(), System: runtime.GOOS + "/" + runtime.GOARCH, CPU: bench.CPUName(), Threads: par.Workers()}
	for _, set := range simd.Sets() {
		r.KernelSets = append(r.KernelSets, set.Name)
	}
	failed := a.examine(r)
	r.OK = failed == nil
	return cmp.Or(a.emitBeside(failed, "doctor", r, r.print), failed)
}

// examine compares the device with its reference. The error says that there is no device, or
// what differs.
func (a *app) examine(r *doctorReport) error {
	name := a.computes.wanted()
	n, err := parseDevice(name)
	if err != nil {
		return misusef("%v", err)
	}
	if n.cuda {
		setup, err := tensor.LookForCUDA()
		r.CUDA = &cudaReport{Folders: setup.Folders, Notes: setup.Notes}
		for _, l := range setup.Libraries {
			r.CUDA.Libraries = append(r.CUDA.Libraries, cudaLibrary(l))
		}
		for _, g := range setup.GPUs {
			r.CUDA.GPUs = append(r.CUDA.GPUs, gpu(g))
		}
		if err != nil && !n.auto {
			return fmt.Errorf("--device %s: %w", name, err)
		}
		on, err := a.device()
		if err != nil {
			return err
		}
		if on != tensor.CPU() {
			return a.compare(r, tensor.CPU(), on)
		}
	}
	plain, err := tensor.CPUWith("generic")
	if err != nil {
		return err
	}
	for _, set := range r.KernelSets {
		if set == "generic" {
			continue
		}
		on, err := tensor.CPUWith(set)
		if err != nil {
			return err
		}
		if err := a.compare(r, plain, on); err != nil {
			return err
		}
	}
	return nil
}

// compare adds a device to the checks.
func (a *app) compare(r *doctorReport, reference, on *tensor.Device) error {
	c := deviceCheck{Device: on.Name(), Against: reference.Name()}
	products := 0.0
	if a.computes.how.TF32 && on != tensor.CPU() {
		products = 5e-3
	}
	var faulty []string
	compare.Devices(reference.Backend(), on.Backend(), products, func(one compare.Result) {
		c.Results = append(c.Results, one)
		if !one.OK() {
			faulty = append(faulty, one.Operation)
		}
	})
	r.Checks = append(r.Checks, c)
	if n := len(faulty); n > 0 {
		names := strings.Join(faulty[:min(n, 3)], "; ")
		if n > 3 {
			names += fmt.Sprintf("; and %d more", n-3)
		}
		return fmt.Errorf("%s computes %s otherwise than %s: %s", c.Device, report.Plural(n, "operation"), c.Against, names)
	}
	return nil
}

func (r *doctorReport) print(w io.Writer) {
	fmt.Fprintf(w, "carousel %s, %s\n", r.Version, r.System)
	fmt.Fprintf(w, "Processor: %s, %s, kernel sets %s\n", cmp.Or(r.CPU, "not named by the system"), report.Plural(r.Threads, "thread"), strings.Join(r.KernelSets, ", "))
	if c := r.CUDA; c != nil {
		for _, l := range c.Libraries {
			fmt.Fprintf(w, "CUDA's %s: %s, %s\n", l.Name, l.Version, l.Path)
		}
		for i, g := range c.GPUs {
			fmt.Fprintf(w, "cuda:%d: %s, compute capability %s, %s, %.1f GiB\n", i, g.Name, g.Capability, report.Plural(g.Multiprocessors, "multiprocessor"), float64(g.Memory)/(1<<30))
		}
		if len(c.Folders) > 0 {
			fmt.Fprintf(w, "Looked in: %s\n", strings.Join(c.Folders, ", "))
		}
		for _, n := range c.Notes {
			fmt.Fprintf(w, "Note: %s\n", n)
		}
	}
	for _, c := range r.Checks {
		fmt.Fprintf(w, "\n%s against %s:\n", c.Device, c.Against)
		var rows [][]string
		for _, one := range c.Results {
			difference, verdict := fmt.Sprintf("%.1e", one.Difference), "ok"
			switch {
			case one.Error != "":
				difference, verdict = "-", "failed"
			case !one.OK():
				verdict = "differs"
			}
			rows = append(rows, []string{one.Operation, difference, fmt.Sprintf("%.0e", one.Bound), verdict})
		}
		printTable(w, []string{"operation", "difference", "bound", ""}, rows)
		if i := slices.IndexFunc(c.Results, func(one compare.Result) bool { return one.Error != "" }); i >= 0 { // others may follow from it
			fmt.Fprintf(w, "%s: %s\n", c.Results[i].Operation, c.Results[i].Error)
		}
		if !slices.ContainsFunc(c.Results, func(one compare.Result) bool { return !one.OK() }) {
			fmt.Fprintf(w, "All %d agree.\n", len(c.Results))
		}
	}
}
