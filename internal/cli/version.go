package cli

import (
	"fmt"
	"io"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/tensor"
)

// versionInfo is the result of version, for bug reports.
type versionInfo struct {
	Version string `json:"version"`      // of carousel
	Format  int    `json:"model_format"` // number of the format of model directories that it writes
	Go      string `json:"go"`           // version of Go that it is built with
	System  string `json:"system"`       // operating system and architecture, as Go names them
	Device  string `json:"device"`       // what it computes on, and with which kernels
	Threads int    `json:"threads"`      // with which it computes
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version, and the kernels and threads that this machine computes with",
		GroupID: groupAbout,
		Args:    noArgs,
		RunE:    func(*cobra.Command, []string) error { return a.printVersion() },
	}
}

func (a *app) printVersion() error {
	v := versionInfo{
		Version: carousel.Version(),
		Format:  model.Format,
		Go:      runtime.Version(),
		System:  runtime.GOOS + "/" + runtime.GOARCH,
		Device:  tensor.CPU().Name(),
		Threads: par.Workers(),
	}
	return a.emit("version", &v, func(w io.Writer) {
		fmt.Fprintf(w, "carousel %s (%s, %s)\n", v.Version, v.Go, v.System)
		fmt.Fprintf(w, "computes on %s with %s\n", v.Device, report.Plural(v.Threads, "thread"))
		fmt.Fprintf(w, "model format %d\n", v.Format)
	})
}
