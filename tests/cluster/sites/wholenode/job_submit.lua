-- slurmctld asks this file about each job: --mem is ignored.

function slurm_job_submit(job, partitions, user)
   job.pn_min_memory = 0
   return slurm.SUCCESS
end

function slurm_job_modify(job, record, partitions, user)
   return slurm.SUCCESS
end
