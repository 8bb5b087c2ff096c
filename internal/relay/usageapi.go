package relay

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"iap/internal/admin"
	"iap/internal/usage"
	"iap/policy"
)

const (
	usageWait   = 10 * time.Second // for one answer, the turn before it included; clients wait 15
	usageSince  = 7 * 24 * time.Hour
	usageRows   = 20
	maxUsageArg = 512 // bytes of a name or time that is asked about
)

// Usage tells the caller what it has used itself.
func (a *userAPI) Usage(ctx context.Context, q admin.UsageQuestion) (admin.UsageReport, error) {
	own := a.session.identity().id()
	if q.Who != "" && q.Who != own {
		return admin.UsageReport{}, badRequest("who: this call is about yourself; /v1/admin/usage is about others")
	}
	q.Who = own
	asked, err := a.relay.usageQuery(q)
	if err != nil {
		return admin.UsageReport{}, err
	}
	done, free := a.relay.asking.enter(own)
	if !free {
		return admin.UsageReport{}, &admin.Error{
			Status: http.StatusTooManyRequests, Code: "overloaded", Message: "another question of yours about usage is being answered", Hint: "ask again in a moment",
		}
	}
	defer done()
	if asked.By == usage.ByResource { // so that none is among the others, unseen by hideRefused
		asked.Top = usage.MaxRows
	}
	report, err := a.relay.readUsage(ctx, asked)
	if err != nil {
		return admin.UsageReport{}, err
	}
	hideRefused(&report, asked)
	return usageReport(q, asked, report), nil
}

// asking is who has a question under way: the book answers one at a time, and
// nobody's questions are to fill the line.
type asking struct {
	mu  sync.Mutex
	who map[string]bool // guarded by mu
}

// enter reports whether the principal has no other question under way.
func (a *asking) enter(who string) (done func(), free bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.who[who] {
		return nil, false
	}
	if a.who == nil {
		a.who = make(map[string]bool)
	}
	a.who[who] = true
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.who, who)
	}, true
}

// hideRefused keeps from callers whether a resource exists that they were only
// ever refused at: it shows like a name that nothing has.
func hideRefused(report *usage.Report, q usage.Query) {
	if q.Resource != "" && report.Total.Requests == 0 {
		*report = usage.Report{From: report.From, To: report.To}
	}
	if q.By != usage.ByResource {
		return
	}
	refused := usage.Row{Name: usage.Refused}
	report.Rows = slices.DeleteFunc(report.Rows, func(row usage.Row) bool {
		if row.Requests == 0 {
			refused.Add(&row.Counts)
		}
		return row.Requests == 0
	})
	if refused.Denied > 0 {
		report.Rows = append(report.Rows, refused)
	}
}

// AdminUsage tells what everybody has used.
func (a *adminAPI) AdminUsage(ctx context.Context, q admin.UsageQuestion) (admin.UsageReport, error) {
	if q.Who != "" && !a.relay.isPrincipal(q.Who) {
		return admin.UsageReport{}, badRequest(fmt.Sprintf("who: %q is not of the form ISSUER/SUBJECT with an issuer of relay.yaml", q.Who))
	}
	asked, err := a.relay.usageQuery(q)
	if err != nil {
		return admin.UsageReport{}, err
	}
	report, err := a.relay.readUsage(ctx, asked)
	if err != nil {
		return admin.UsageReport{}, err
	}
	return usageReport(q, asked, report), nil
}

// usageQuery reads a question.
func (r *Relay) usageQuery(q admin.UsageQuestion) (usage.Query, error) {
	out := usage.Query{
		By: usage.Dimension(q.By), Per: usage.Level(q.Per), Principal: q.Who, Resource: q.Resource, Model: q.Model, Top: q.Top,
	}
	if q.By == "" {
		out.By = usage.ByModel
	}
	if out.Top == 0 {
		out.Top = usageRows
	}
	switch {
	case !slices.Contains(usage.Dimensions(), out.By):
		return out, badRequest(fmt.Sprintf("by: %q is none of principal, group, model, resource, grant and action", q.By))
	case q.Per != "" && !slices.Contains(usage.Levels(), out.Per):
		return out, badRequest(fmt.Sprintf("per: %q is neither minute nor hour nor day", q.Per))
	case out.Top > usage.MaxRows:
		return out, badRequest(fmt.Sprintf("top: at most %d", usage.MaxRows))
	case len(q.Resource) > maxUsageArg || len(q.Model) > maxUsageArg:
		return out, badRequest("resource, model: nothing has so long a name")
	}
	now := r.now()
	var err error
	out.From = now.Add(-usageSince)
	if q.Since != "" {
		if out.From, err = pointInTime(q.Since, now); err != nil {
			return out, badRequest("since: " + err.Error())
		}
	}
	if q.Until != "" {
		if out.To, err = pointInTime(q.Until, now); err != nil {
			return out, badRequest("until: " + err.Error())
		}
	}
	return out, nil
}

// pointInTime reads how long ago something was, or when.
func pointInTime(text string, now time.Time) (time.Time, error) {
	if len(text) > maxUsageArg {
		return time.Time{}, errors.New("no time is written so long")
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	ago, err := policy.ParseDuration(text)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is neither a time ago, such as 7d or 12h, nor a day, such as 2026-11-23", text)
	}
	return now.Add(-ago), nil
}

func (r *Relay) readUsage(ctx context.Context, q usage.Query) (usage.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, usageWait)
	defer cancel()
	report, err := r.usage.Query(ctx, q)
	switch {
	case err == nil:
		return report, nil
	case errors.Is(err, usage.ErrQuestion):
		return report, badRequest("since, until: " + err.Error())
	case errors.Is(err, usage.ErrTooMuch):
		return report, &admin.Error{
			Status: http.StatusUnprocessableEntity, Code: "usage_too_large", Message: usage.ErrTooMuch.Error(),
			Hint: "ask about a shorter time, or about one principal",
		}
	}
	r.log.Error("read usage statistics", "error", err)
	return report, stateUnavailable(err)
}

// usageReport is the answer in the words of the API.
func usageReport(q admin.UsageQuestion, asked usage.Query, from usage.Report) admin.UsageReport {
	out := admin.UsageReport{
		From: from.From, To: from.To, By: string(asked.By), Per: q.Per, Who: q.Who, Resource: q.Resource, Model: q.Model,
		Total: usageSum(&from.Total), Rows: []admin.UsageRow{}, OtherRows: from.OtherRows, Incomplete: from.Incomplete,
	}
	for i := range from.Rows {
		out.Rows = append(out.Rows, admin.UsageRow{Name: from.Rows[i].Name, UsageSum: usageSum(&from.Rows[i].Counts)})
	}
	if from.OtherRows > 0 {
		others := usageSum(&from.Others)
		out.Others = &others
	}
	for i := range from.Points {
		out.Points = append(out.Points, admin.UsagePoint{Start: from.Points[i].Start, UsageSum: usageSum(&from.Points[i].Counts)})
	}
	return out
}

func usageSum(c *usage.Counts) admin.UsageSum {
	sum := admin.UsageSum{
		Requests: c.Requests, Denied: c.Denied, Errors: c.Errors, Cancelled: c.Cancelled, TokensIn: c.TokensIn, TokensOut: c.TokensOut,
		DurationMS: c.Duration.Milliseconds(),
	}
	if c.First.Count() > 0 {
		sum.TTFTP50MS, sum.TTFTP95MS = max(1, c.First.Quantile(0.5).Milliseconds()), max(1, c.First.Quantile(0.95).Milliseconds())
	}
	return sum
}
