{{/*
For the chart of a PAM, which names this one among its dependencies, sets `portcullis.mode: sidecar` in its values, and has
in its Deployment:

  spec:
    template:
      metadata:
        labels:
          {{- include "portcullis.sidecar.labels" .Subcharts.portcullis | nindent 10 }}
      spec:
        terminationGracePeriodSeconds: {{ include "portcullis.sidecar.gracePeriod" .Subcharts.portcullis }}
        securityContext:
          fsGroup: 65532                       # any; Portcullis reads its secrets by it
        initContainers:
          {{- include "portcullis.sidecar.container" .Subcharts.portcullis | nindent 10 }}
        containers:
          - name: pam                          # which listens on loopback, and has no port of the name `http`
            lifecycle:
              {{- include "portcullis.sidecar.pamLifecycle" .Subcharts.portcullis | nindent 14 }}
        volumes:
          {{- include "portcullis.sidecar.volumes" .Subcharts.portcullis | nindent 10 }}

Its Service has `targetPort: http`.
*/}}

{{/* For initContainers: a native sidecar, which starts before the PAM and ends after it. */}}
{{- define "portcullis.sidecar.container" -}}
- {{- include "portcullis.container" . | nindent 2 }}
  restartPolicy: Always
  lifecycle:
    preStop:
      # The kubelet signals a native sidecar last, when the PAM is gone. This tells it first, so that callers go elsewhere
      # while the PAM still answers.
      exec: { command: [/portcullis, drain] }
{{- end }}

{{- define "portcullis.sidecar.volumes" -}}
{{ include "portcullis.volumes" . }}
{{- end }}

{{/* For the pod template, not for the selector, which cannot change. */}}
{{- define "portcullis.sidecar.labels" -}}
{{ include "portcullis.selector" . }}
{{- end }}

{{/* For the PAM's container: it stays until Portcullis has no request for it any more. */}}
{{- define "portcullis.sidecar.pamLifecycle" -}}
preStop:
  sleep: { seconds: {{ add .Values.drain.delaySeconds .Values.drain.timeoutSeconds }} }
{{- end }}

{{/* The PAM's preStop, its own end, and then Portcullis, which may have been started once more. */}}
{{- define "portcullis.sidecar.gracePeriod" -}}
{{ add .Values.drain.delaySeconds .Values.drain.timeoutSeconds .Values.pamStopSeconds .Values.drain.delaySeconds 5 }}
{{- end }}
