// Uses a generated client against a real daemon. Arguments: what to do (read, change, refused), and where the API is: the socket, or the
// address with the files of certificate, key and authority.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"

	lb "./lbclient"
)

var ctx = context.Background()

// No answer is expected to be otherwise.
func expect(holds bool, what ...interface{}) {
	if !holds {
		panic(fmt.Sprintln(what...))
	}
}

// The error in the answer, which must be the one that the document describes, with this code.
func refusal(err error, code lb.ErrorCode) lb.ErrorDetail {
	var answer *lb.GenericOpenAPIError
	expect(errors.As(err, &answer), "no refusal:", err)
	body, typed := answer.Model().(lb.ErrorBody)
	expect(typed && body.Error.Code == code && body.Error.Message != "", string(answer.Body()))
	return body.Error
}

func connect(where []string) *lb.APIClient {
	configuration, transport := lb.NewConfiguration(), &http.Transport{}
	server := "http://lb"
	if len(where) == 1 {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", where[0])
		}
	} else {
		certificate, err := tls.LoadX509KeyPair(where[1], where[2])
		expect(err == nil, err)
		authority, err := os.ReadFile(where[3])
		expect(err == nil, err)
		roots := x509.NewCertPool()
		expect(roots.AppendCertsFromPEM(authority), "no certificate of an authority")
		transport.TLSClientConfig = &tls.Config{Certificates: []tls.Certificate{certificate}, RootCAs: roots}
		server = "https://" + where[0]
	}
	configuration.HTTPClient = &http.Client{Transport: transport}
	configuration.Servers = lb.ServerConfigurations{{URL: server}}
	return lb.NewAPIClient(configuration)
}

func read(api *lb.APIClient) {
	status, _, err := api.DaemonAPI.Status(ctx).Execute()
	expect(err == nil && status.Ready && len(status.Interfaces) > 0 && status.Version != "", err, status)
	web, _, err := api.ServicesAPI.ShowService(ctx, "web4").Execute()
	expect(err == nil && len(web.Backends) == 2 && web.Backends[0].Name == "b0", err, web)
	expect(web.Backends[0].Health.IsValid(), web.Backends[0].Health)
	events, _, err := api.DaemonAPI.Events(ctx).Execute()
	expect(err == nil && strings.Contains(events, `"kind":"started"`), err, events)
	_, _, err = api.ServicesAPI.ShowService(ctx, "nothing").Execute()
	refusal(err, lb.ERRORCODE_NOT_FOUND)
}

func change(api *lb.APIClient) {
	before, _, err := api.DaemonAPI.Status(ctx).Execute()
	expect(err == nil, err)
	ringSize := "auto"
	spec := lb.NewServiceSpec("192.0.2.79", "go")
	spec.SetPort(53)
	spec.SetProtocol("udp")
	spec.SetRingSize(lb.StringAsServiceSpecRingSize(&ringSize))
	spec.SetHealth(*lb.NewHealthSpec("udp"))
	added, _, err := api.ServicesAPI.AddService(ctx).ServiceSpec(*spec).Execute()
	expect(err == nil && added.Changed && added.Services[0] == "go", err, added)
	spec.SetPort(54)
	_, _, err = api.ServicesAPI.AddService(ctx).ServiceSpec(*spec).Execute()
	refusal(err, lb.ERRORCODE_CONFLICT)

	one := lb.NewBackendSpec("10.1.0.78:53", "one")
	one.SetWeight(9)
	_, _, err = api.BackendsAPI.AddBackend(ctx, "go").BackendSpec(*one).Execute()
	expect(err == nil, err)
	drain := lb.NewBackendPatch()
	drain.SetAdmin("draining")
	_, _, err = api.BackendsAPI.SetBackend(ctx, "go", "one").BackendPatch(*drain).Execute()
	expect(err == nil, err)
	shown, _, err := api.BackendsAPI.ShowBackend(ctx, "go", "one").Execute()
	expect(err == nil && shown.Admin == lb.ADMIN_DRAINING && shown.Weight == 9, err, shown)
	_, _, err = api.BackendsAPI.SetBackend(ctx, "go", "one").BackendPatch(*drain).Revision(before.Revision).Execute()
	refusal(err, lb.ERRORCODE_CONFLICT)

	wrong := lb.NewApplyRequest("a.toml", "port = 1\n")
	_, _, err = api.DaemonAPI.Apply(ctx).ApplyRequest(*wrong).Execute()
	details := refusal(err, lb.ERRORCODE_INVALID).Details
	expect(len(details) > 0 && details[0].GetLine() == 1, details)
	steps, _, err := api.TrafficAPI.Explain(ctx).Protocol("udp").Source("198.51.100.1:9").Destination("192.0.2.79:53").Execute()
	expect(err == nil && len(steps.Steps) > 0 && steps.GetService() == "go", err, steps)
	_, _, err = api.ServicesAPI.RemoveService(ctx, "go").Execute()
	expect(err == nil, err)
}

func refused(api *lb.APIClient) {
	_, _, err := api.ServicesAPI.RemoveService(ctx, "web4").Execute()
	refusal(err, lb.ERRORCODE_FORBIDDEN)
}

func main() {
	api := connect(os.Args[2:])
	for _, work := range strings.Split(os.Args[1], ",") {
		map[string]func(*lb.APIClient){"read": read, "change": change, "refused": refused}[work](api)
	}
}
