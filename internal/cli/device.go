package cli

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/carousel-ml/carousel/internal/cli/recipe"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

// deviceVariable names the device for commands without --device.
const deviceVariable = "CAROUSEL_DEVICE"

// deviceFlags choose what a command computes on.
type deviceFlags struct {
	name string // "": that of deviceVariable, or the CPU
	how  tensor.CUDAOptions

	opened *tensor.Device
	hushed bool // the notes of a device are shown otherwise
}

// bind adds the flags of a command that computes with networks.
func (d *deviceFlags) bind(flags *pflag.FlagSet) {
	flags.StringVar(&d.name, "device", "", "compute on this `device`: cpu, cuda or cuda:N (an NVIDIA GPU, by carousel-dl), or auto, which is cuda where it can be used (empty: "+deviceVariable+", or cpu)")
	flags.BoolVar(&d.how.TF32, "tf32", false, "on cuda: round the operands of float32 products to 10 bits of mantissa, which is faster")
	flags.BoolVar(&d.how.Deterministic, "deterministic", false, "on cuda: only kernels of Carousel's own, so that results do not depend on cuBLASLt's and cuDNN's choices")
	for _, name := range []string{"device", "tf32", "deterministic"} {
		flags.Lookup(name).Annotations = map[string][]string{recipe.Group: {"Device"}}
	}
}

// A deviceName is the parts of the name of a device.
type deviceName struct {
	cuda    bool
	auto    bool // the CPU will do
	ordinal int  // of cuda; -1: not said
}

func parseDevice(text string) (n deviceName, err error) {
	kind, number, numbered := strings.Cut(text, ":")
	n.ordinal = -1
	switch {
	case kind == "cuda" && numbered:
		n.cuda = true
		if n.ordinal, err = strconv.Atoi(number); err == nil && n.ordinal >= 0 {
			return n, nil
		}
	case kind == "cuda" || kind == "auto" && !numbered:
		return deviceName{true, kind == "auto", -1}, nil
	case kind == "cpu" && !numbered:
		return n, nil
	}
	return n, fmt.Errorf("want cpu, cuda, cuda:N or auto, got %q", text)
}

// checkDevice is parseDevice for a configuration file.
func checkDevice(text string) error {
	_, err := parseDevice(text)
	return err
}

// wanted is the name of the device that a command computes on.
func (d *deviceFlags) wanted() string { return cmp.Or(d.name, os.Getenv(deviceVariable), "cpu") }

// check finds names that are no device, before anything is read.
func (d *deviceFlags) check() error {
	if _, err := parseDevice(cmp.Or(d.name, "cpu")); err != nil {
		return wrongFlag("device", "--device: %v", err)
	}
	if _, err := parseDevice(d.wanted()); err != nil {
		return misusef("%s: %v", deviceVariable, err)
	}
	return nil
}

// device opens the device that --device or the environment names, once.
func (a *app) device() (*tensor.Device, error) {
	return a.openDevice(a.computes.name)
}

// openDevice opens a device by name, "" being what the environment says. Of ranks that share a machine each takes the GPU of its
// number there, unless the name has one.
func (a *app) openDevice(name string) (*tensor.Device, error) {
	d := &a.computes
	if d.opened != nil {
		return d.opened, nil
	}
	name = cmp.Or(name, a.computes.wanted())
	n, err := parseDevice(name)
	if err != nil {
		return nil, misusef("%v", err)
	}
	if !n.cuda {
		if d.how != (tensor.CUDAOptions{}) {
			a.remark("--tf32 and --deterministic change nothing on the CPU.")
		}
		d.opened = tensor.CPU()
		return d.opened, nil
	}
	ordinal := max(n.ordinal, 0)
	if n.ordinal < 0 && a.place != nil {
		ordinal = a.place.LocalRank
	}
	opened, err := tensor.CUDA(ordinal, d.how)
	switch {
	case err == nil:
		if !d.hushed {
			a.remarks(opened.Notes())
		}
	case n.auto:
		a.remark(fmt.Sprintf("--device auto computes on the CPU: %v", err))
		opened = tensor.CPU()
	default:
		return nil, fmt.Errorf("--device %s: %w", name, err)
	}
	d.opened = opened
	return opened, nil
}

// lostDevice adds to the error of a training whose device failed what is left of it.
func (a *app) lostDevice(run *trainRun, err error) error {
	failed := (*tensor.DeviceError)(nil)
	if !errors.As(err, &failed) || !train.HasCheckpoint(run.Out) {
		return err
	}
	return fmt.Errorf("%w; %s is as it was after its last checkpoint, from which this continues, also with --device cpu: %s", err, run.Out, a.resumeCommand())
}
