// Notices that the Python behind a widget has ended: it was shut down, it was restarted, or it has crashed.

const ENDS = ["dead", "terminating", "restarting", "autorestarting"];

// Call ended() once when that happens, or at once if it has happened.  JupyterLab and Notebook tell through the session
// of the document.  Elsewhere the widget's own connection tells when it is closed.
export function watchPython(model, listen, ended) {
  const session = model.widget_manager && model.widget_manager.context && model.widget_manager.context.sessionContext;
  let reported = false;
  const tell = () => {
    if (!reported) ended();
    reported = true;
  };
  if (!session) {
    listen.model("comm_live_update", tell);
    return;
  }
  const kernelOf = () => (session.session && session.session.kernel ? session.session.kernel.id : "");
  const own = kernelOf();
  const status = (_, now) => ENDS.includes(now) && tell();
  const changed = () => own && kernelOf() !== own && tell();
  session.statusChanged.connect(status);
  session.kernelChanged.connect(changed);
  listen.also(() => session.statusChanged.disconnect(status));
  listen.also(() => session.kernelChanged.disconnect(changed));
}
