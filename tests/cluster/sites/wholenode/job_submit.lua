-- slurmctld asks this file about each job: --mem is ignored, and GPUs are asked for by node.

function slurm_job_submit(job, partitions, user)
   job.pn_min_memory = 0
   if (job.tres_per_job or ""):find("gpu") then
      slurm.log_user("Please ask for GPUs of a node: --gres=gpu:1")
      return slurm.ERROR
   end
   return slurm.SUCCESS
end

function slurm_job_modify(job, record, partitions, user)
   return slurm.SUCCESS
end
